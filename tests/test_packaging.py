"""What `pip install .` makes, and that what is said twice is said alike."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import setuptools

import kd_jax
import runs
from kd_jax import config as config_lib

ROOT = runs.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def required(name):
  """The lines of a requirements file, without comments and other files."""
  lines = (ROOT / name).read_text().splitlines()
  lines = [line.partition(" #")[0].strip() for line in lines]
  return {line for line in lines if line and line[0] not in "#-"}


def test_extras_say_what_the_requirements_files_say():
  assert set(EXTRAS["tpu"]) == required("requirements-tpu.txt")
  assert set(EXTRAS["dev"]) == required("requirements-dev.txt")
  (jax,) = (x for x in required("requirements.txt") if x.startswith("jax>"))
  for name, kind in (("tpu", "tpu"), ("cuda", "cuda13"), ("cuda12", "cuda12")):
    assert EXTRAS[name] == [jax.replace("jax", f"jax[{kind}]")]
  (s3,) = (x for x in EXTRAS["cloud"] if x.startswith("s3fs"))
  assert s3 in EXTRAS["dev"]


def test_one_version_everywhere():
  cff = (ROOT / "CITATION.cff").read_text()
  changes = (ROOT / "CHANGELOG.md").read_text()
  assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
  (cited,) = re.findall(r"^version: (\S+)$", cff, re.MULTILINE)
  newest = re.findall(r"^## (\d[\d.]*)", changes, re.MULTILINE)[0]
  assert cited == newest == kd_jax.__version__


def test_every_folder_with_code_is_a_package():
  """A folder without `__init__.py` would be left out of the wheel."""
  folders = {path.parent for path in (ROOT / "kd_jax").rglob("*.py")}
  assert len(folders) > 20
  assert not [x for x in folders if not (x / "__init__.py").is_file()]


def test_recipes_are_found_from_anywhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert config_lib.load("configs/models.py").task == "models"
  with pytest.raises(ValueError, match=r"no config configs/model.py; .*odels"):
    config_lib.load("configs/model.py")
  with pytest.raises(ValueError, match="no config elsewhere/models.py"):
    config_lib.load("elsewhere/models.py")
  own = tmp_path / "configs" / "models.py"
  own.parent.mkdir()
  own.write_text(
    "from ml_collections import ConfigDict\n"
    "def get_config(variant=''):\n  return ConfigDict({'task': 'mine'})\n"
  )
  assert config_lib.load("configs/models.py").task == "mine"


@pytest.mark.slow
@pytest.mark.skipif(
  int(setuptools.__version__.partition(".")[0]) < 77,
  reason="setuptools>=77 builds the wheel; pip install -r requirements-dev.txt",
)
def test_the_wheel_holds_the_package_its_types_and_the_recipes(tmp_path):
  source = tmp_path / "source"
  for name in ("kd_jax", "configs"):
    shutil.copytree(ROOT / name, source / name)
  for path in (*ROOT.glob("*.*"), ROOT / "LICENSE"):
    if path.is_file():
      shutil.copy(path, source)
  command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
  command += ["--no-build-isolation", "-w", str(tmp_path), str(source)]
  subprocess.run(command, check=True)
  (wheel,) = tmp_path.glob(f"kd_jax-{kd_jax.__version__}-py3-none-any.whl")
  with zipfile.ZipFile(wheel) as found:
    names = set(found.namelist())
    (metadata,) = (x for x in names if x.endswith(".dist-info/METADATA"))
    text = found.read(metadata).decode()
  code = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "kd_jax").rglob("*.py")
  }
  recipes = {
    f"kd_jax/configs/{x.name}" for x in (ROOT / "configs").glob("*.py")
  }
  assert code | recipes | {"kd_jax/py.typed"} <= names
  assert all(x.startswith("kd_jax") for x in names)
  assert set(re.findall(r"Provides-Extra: (.*)", text)) == set(EXTRAS)
  plain = re.findall(r"Requires-Dist: ([\w.-]+)[^;\n]*$", text, re.MULTILINE)
  wanted = {re.split(r"[<>=]", x)[0] for x in required("requirements.txt")}
  assert set(plain) == wanted
