"""All scripts in launch/: checked by shellcheck, and told of in the docs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import runs

SCRIPTS = sorted(
  path
  for path in (runs.ROOT / "launch").iterdir()
  if path.suffix in (".sh", ".sbatch")
)
OWN = Path(sys.executable).parent
SHELLCHECK = shutil.which("shellcheck", path=f"{OWN}:{os.environ['PATH']}")


def test_shellcheck():
  assert SHELLCHECK, "pip install -r requirements-dev.txt"
  done = subprocess.run(
    [SHELLCHECK, *map(str, SCRIPTS)],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout
  assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_docs_tell_of_each_script(path):
  text = (runs.ROOT / "docs" / "launch.md").read_text()
  assert f"launch/{path.name}" in text
  assert path.stat().st_mode & 0o111


@pytest.mark.parametrize(
  "name", ["local.sh", "tpu.sh", "slurm.sbatch", "gke.sh"]
)
def test_help_and_options_agree(name):
  """Each option that a script reads stands in its help."""
  text = (runs.ROOT / "launch" / name).read_text()
  header, code = text.split("set -u", 1)
  options = re.findall(r"^    (--[a-z |-]*)\)", code, re.M)
  for option in re.findall(r"--[a-z-]+", " ".join(options)):
    assert option in header or option in ("--exclusive", "--contiguous")
