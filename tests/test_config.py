"""Reading config files and overriding their fields."""

import re

import pytest

from kd_jax import config as config_lib

TEXT = """
from ml_collections import ConfigDict

def get_config(variant=""):
  if variant not in ("", "small"):
    raise ValueError(f"no variant {variant!r}; there is 'small'")
  config = ConfigDict()
  config.task = "pretrain"
  config.steps = 1 if variant else 100
  config.rate = 0.5
  config.fast = False
  config.evals = ("knn",)
  config.data = ConfigDict({"name": "digits", "split": "train"})
  config.method = ConfigDict({"name": "kdep", "align": {"name": "svd"}})
  config.student = ConfigDict({"name": "resnet18", "overrides": {}})
  config.eval = ConfigDict({"test": {"name": ""}})
  config.head = ConfigDict({"name": "psp", "bins": (1, 2)})
  config.aux = ConfigDict({"name": "fcn", "channels": 8})
  config.lock()
  return config
"""


@pytest.fixture
def path(tmp_path):
  file = tmp_path / "some.py"
  file.write_text(TEXT)
  return file


def test_variants(path):
  assert config_lib.load(str(path)).steps == 100
  assert config_lib.load(f"{path}:small").steps == 1
  with pytest.raises(ValueError, match="some.py: no variant 'big'; .*'small'"):
    config_lib.load(f"{path}:big")


@pytest.mark.parametrize(
  ("override", "field", "value"),
  [
    ("steps=7", "steps", 7),
    ("rate=2", "rate", 2.0),
    ("rate=1e-3", "rate", 1e-3),
    ("fast=true", "fast", True),
    ("fast=0", "fast", False),
    ("evals=()", "evals", ()),
    ("evals=['knn','probe']", "evals", ("knn", "probe")),
    ("data.split=5", "data.split", "5"),
    ("data.split=train[:5%]", "data.split", "train[:5%]"),
    ("data.classes=(1,2)", "data.classes", (1, 2)),
    ("method.align.seed=3", "method.align.seed", 3),
    ("student.overrides.num_classes=3", "student.overrides.num_classes", 3),
    ("student.overrides.block=basic", "student.overrides.block", "basic"),
    ("eval.test.dir=x=y", "eval.test.dir", "x=y"),
  ],
)
def test_overrides_keep_types(path, override, field, value):
  found = config_lib.load(str(path), [override])
  for name in field.split("."):
    found = found[name]
  assert found == value and type(found) is type(value)


def test_a_new_name_starts_from_the_part_s_own_defaults(path):
  found = config_lib.load(str(path), ["data.name=folder", "data.dir=/x"])
  assert found.data.to_dict() == {"name": "folder", "dir": "/x"}
  found = config_lib.load(str(path), ["method.align.name=pts"])
  assert found.method.to_dict() == {"name": "kdep", "align": {"name": "pts"}}
  found = config_lib.load(str(path), ["method.name=supervised"])
  assert found.method.to_dict() == {"name": "supervised"}
  fields = ["head.name=fpn", "head.channels=24", "aux.name="]
  found = config_lib.load(str(path), fields)
  assert found.head.to_dict() == {"name": "fpn", "channels": 24}
  assert found.aux.to_dict() == {"name": ""}
  fields = ["num_classes=0", "drop_path_rate=0.1"]
  fields = [f"student.overrides.{field}" for field in fields]
  fields += ["student.name=resnet34"]
  found = config_lib.load(str(path), fields)
  assert found.student.overrides.to_dict() == {"num_classes": 0}


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("step=1", r"no field config.step; the fields of config are \['steps', "),
    ("eval.tests.name=x", r"no field config.eval.tests; .*\['test'\]"),
    ("steps.x=1", "config.steps is a value, it has no field 'x'"),
    ("steps", "config.steps has no value; write --config.steps=value"),
    ("steps=1.5", "is no int; its value now is 100. Write a whole number"),
    ("steps=true", "is no int"),
    ("steps=", "config.steps='' is no int"),
    ("rate=fast", "is no float; .* Write a number"),
    ("fast=2", "is no bool; .* Write true or false"),
    ("evals=knn", r"is no tuple; .* Write a tuple such as \"\('a','b'\)\""),
    ("data=folder", r"config.data holds the fields \['name', 'split'\]"),
  ],
)
def test_overrides_that_cannot_be(path, override, message):
  with pytest.raises(ValueError, match=message):
    config_lib.load(str(path), [override])


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("def get_config(", "fails: SyntaxError"),
    ("import nosuchmodule", r"fails \(line 1\): ModuleNotFoundError.*nosuch"),
    ("x = 1", r"does not define get_config\(variant=''\)"),
    ("def get_config(v):\n  return {}[v]", r"fails \(line 2\): KeyError: ''"),
    ("def get_config(v):\n  return {}", "it names no task"),
  ],
)
def test_files_that_are_no_config(tmp_path, text, message):
  path = tmp_path / "broken.py"
  path.write_text(text)
  with pytest.raises(ValueError, match=message) as error:
    config_lib.load(str(path))
  assert str(error.value).startswith(str(path))


def test_a_missing_file_names_what_is_there_nearest_first(path):
  (path.parent / "another.py").touch()
  (path.parent / "common.py").touch()
  wrong = path.with_name("same.py")
  with pytest.raises(ValueError, match="there is no config") as error:
    config_lib.load(str(wrong))
  assert re.findall(r"(\w+)\.py'", str(error.value)) == ["some", "another"]
