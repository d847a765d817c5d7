"""What the docs point at exists, and what they show runs."""

import importlib
import re
import sys

import numpy as np
import pytest

import runs
from kd_jax import config as config_lib
from kd_jax import resolve
from kd_jax.report import metrics
from kd_jax.tasks import pretrain

ROOT = runs.ROOT
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
WHERE = (ROOT / "docs" / "where.md").read_text()
EXAMPLES = dict(
  re.findall(
    r"`kd_jax/([\w/]+)\.py`[^`]*?```python\n(.*?)```",
    (ROOT / "docs" / "extend.md").read_text(),
    re.DOTALL,
  )
)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_paths_that_a_page_names_exist(page):
  named = set(
    re.findall(r"`((?:kd_jax|configs|docs|tests)/[^`\s]*)`", page.read_text())
  )
  own = {f"kd_jax/{name}.py" for name in EXAMPLES}
  missing = {n for n in named - own if not (ROOT / n.split(":")[0]).exists()}
  assert not missing


def test_every_question_has_one_answer():
  rows = re.findall(r"^\| (.+?) \| `([^`]+)` \|$", WHERE, re.MULTILINE)
  files = [path for _, path in rows if path.endswith(".py")]
  assert len(files) >= 20 and len(set(files)) == len(files)
  assert all((ROOT / path).is_file() for path in files)


def test_every_folder_is_explained():
  for folder in (ROOT / "kd_jax").iterdir():
    if folder.is_dir() and (folder / "__init__.py").exists():
      assert f"{folder.name}/`" in WHERE, folder


@pytest.fixture
def extended(tmp_path, monkeypatch):
  """The package with the files of docs/extend.md."""
  assert set(EXAMPLES) == {
    "data/sources/flat",
    "methods/similarity",
    "teachers/colours",
  }
  for name, text in EXAMPLES.items():
    file = tmp_path / "kd_jax" / f"{name}.py"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    floor = name.rpartition("/")[0].replace("/", ".")
    package = importlib.import_module(f"kd_jax.{floor}")
    path = [*package.__path__, str(file.parent)]
    monkeypatch.setattr(package, "__path__", path)
  resolve._files.cache_clear()
  yield
  resolve._files.cache_clear()
  for name in EXAMPLES:
    sys.modules.pop("kd_jax." + name.replace("/", "."), None)


def test_the_examples_train_a_student(extended, tmp_path):
  config = config_lib.load(
    str(runs.CONFIG),
    ["teacher.source=colours", "data.name=flat", "method.name=similarity"],
  )
  with config.unlocked():
    config.losses = {"similarity": 1.0}
    config.eval.evals = ()
  pretrain.run(config, tmp_path / "run")
  lines = metrics.read(tmp_path / "run")
  found = [x["loss/similarity"] for x in lines if "loss/similarity" in x]
  assert np.isfinite(found).all() and min(found) > 0
  assert len(set(found)) > 2
