"""Types are what they say; `pyproject.toml` has what pyright looks at."""

import os
import subprocess
import sys

import pytest

import runs


@pytest.mark.slow
def test_pyright_finds_nothing():
  command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
  # It would ask the internet whether there is a newer version.
  env = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
  done = subprocess.run(
    command, cwd=runs.ROOT, env=env, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert "0 errors, 0 warnings" in done.stdout
