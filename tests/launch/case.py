"""What the tests of the launch scripts share: a checkout and its clouds."""

import json
import os
import shutil
import subprocess
import sys
import time

import runs
import stand_ins

BUCKET = "gs://bucket"
# Stands for the interpreter of another machine, which reaches the bucket.
PYTHON = f"""#!/usr/bin/env bash
for word; do
  set -- "${{@:2}}" "${{word/#gs:\\/\\/bucket/$BUCKET}}"
done
exec {sys.executable} "$@"
"""


class Cloud:
  """A folder with a checkout of its own, stand-ins, a bucket and a state."""

  def __init__(self, folder):
    self.folder = folder
    self.checkout = folder / "checkout"
    self.bucket = folder / "bucket"
    self.state = folder / "state"
    for path in (self.bucket, self.state):
      path.mkdir(parents=True)
    binaries = stand_ins.install(folder)
    python = binaries / "remote-python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    self.env = {
      **os.environ,
      **runs.ENV,
      "PATH": f"{binaries}:{os.environ['PATH']}",
      "STAND_INS": str(self.state),
      "PYTHON": str(python),
      "BUCKET": str(self.bucket),
      "KD_JAX_POLL": "0.1",
      "XLA_FLAGS": runs.devices(1),
      "TMPDIR": str(folder),
    }
    self.binaries = binaries

  def check_out(self, *names):
    """A repository with what is named, or the scripts alone, as a commit."""
    for name in ("launch", *names):
      shutil.copytree(
        runs.ROOT / name,
        self.checkout / name,
        ignore=shutil.ignore_patterns("__pycache__"),
      )
    for name in ("requirements.txt", "requirements-tpu.txt"):
      shutil.copy(runs.ROOT / name, self.checkout / name)
    self.git("init", "--quiet")
    self.git("add", "--all")
    self.git(
      *("-c", "user.name=t", "-c", "user.email=t@t"),
      *("commit", "--quiet", "--message=all"),
    )
    return self

  def git(self, *words):
    subprocess.run(["git", *words], cwd=self.checkout, check=True)

  def start(self, script, *words, **env):
    return subprocess.Popen(
      [str(self.checkout / "launch" / script), *words],
      cwd=self.checkout,
      env={**self.env, **env},
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def run(self, script, *words, **env):
    """(status, output, errors) of a script."""
    process = self.start(script, *words, **env)
    out, error = process.communicate(timeout=runs.PATIENCE)
    return process.returncode, out, error

  def plan(self, **failures):
    """What fails: `plan(tpu_vm__create=["quota"])`."""
    plan = {
      key.replace("__", " ").replace("_", "-"): value
      for key, value in failures.items()
    }
    self.put("plan.json", plan)

  def put(self, name, value):
    path = self.state / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))

  def calls(self, *first):
    """The recorded calls that begin with these words."""
    lines = (self.state / "calls.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [call for call in found if call[: len(first)] == list(first)]

  def verbs(self, tool, place):
    """['describe', 'create', ...]: a word of each call."""
    return [call[place] for call in self.calls(tool)]


def wait_for(condition, process):
  give_up = time.monotonic() + runs.PATIENCE
  while not condition():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < give_up, "never came so far"
    time.sleep(0.05)


def tiny(cloud, where, *fields):
  """CONFIG and arguments of a run of the tiny config in the bucket."""
  teacher = cloud.folder / "teacher"
  if not teacher.exists():
    runs.save_teacher(teacher)
  return [
    "tests/configs/tiny.py",
    *("--workdir", where, f"--config.teacher.weights={teacher}"),
    *(f"--config.{field}" for field in fields),
  ]
