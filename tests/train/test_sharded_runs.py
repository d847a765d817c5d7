"""Runs on tars and tables that are killed and go on."""

import numpy as np
import pytest

import runs
import shard_files


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "place"),
  [("webdataset", "urls={}/tars"), ("huggingface", "path={}/tables")],
)
def test_killed_and_resumed_is_as_one(tmp_path, name, place):
  shard_files.write(tmp_path / "data", 70, per_shard=9, per_group=8)
  teacher = runs.save_teacher(tmp_path / "teacher")
  fields = (
    f"teacher.weights={teacher}",
    f"data.name={name}",
    f"data.{place.format(tmp_path / 'data')}",
    "data.split=all",
    "data.shuffle_blocks=4",
  )
  runs.here(tmp_path / "whole", *fields)
  killed = tmp_path / "killed"
  runs.kill(lambda where: 6 in runs.checkpoints(where), killed, *fields)
  assert 12 not in runs.checkpoints(killed)
  assert "6" in runs.here(killed, *fields)
  whole, again = (runs.state(tmp_path / n, 12) for n in ("whole", "killed"))
  assert whole.keys() == again.keys() and len(whole) > 20
  for path in whole:
    np.testing.assert_array_equal(whole[path], again[path], err_msg=path)
