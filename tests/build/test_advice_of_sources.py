"""What errors of a source advise."""

import pytest

from kd_jax.build import images


@pytest.mark.parametrize("part", ["data", "test"])
def test_errors_name_the_part_of_the_config(tmp_path, part):
  fields = {"name": "voc", "dir": str(tmp_path), "split": "2007_test"}
  with pytest.raises(ValueError, match=f"set --config.{part}.dir to ") as error:
    images.source(fields, part)
  said = str(error.value)
  assert said.count("--config.") == said.count(f"--config.{part}.") == 2
  with pytest.raises(ValueError, match="data has no 'vok'"):
    images.source({"name": "vok"}, part)
