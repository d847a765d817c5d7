"""Real runs of the command line on tests/configs/tiny.py."""

import contextlib
import io
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

from kd_jax import convert, main
from kd_jax.teachers import random

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = ROOT / "tests" / "configs" / "tiny.py"
TRANSFER = ROOT / "tests" / "configs" / "transfer.py"
# Small programs are worth caching too where start-up is all that takes time.
ENV = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
PATIENCE = 300


def devices(count):
  """XLA_FLAGS of a process with so many devices, beside those of the tests."""
  flag = f"--xla_force_host_platform_device_count={count}"
  return f"{os.environ['XLA_FLAGS']} {flag}"


def save_teacher(directory, channels=(8, 8, 16, 24), **overrides):
  """A checkpoint for the tiny config, as timm stores it."""
  fields = {
    "layers": (1, 1, 1, 1),
    "channels": channels,
    "stem_width": 4,
    "stem_type": "cifar",
    "num_classes": 0,
    "input_size": (3, 8, 8),
    **overrides,
  }
  source, variables = random.load("resnet18", "", fields)
  return convert.save_timm(source.model, variables, directory, name="resnet18")


def arguments(workdir, *fields, variant="", config=CONFIG):
  flags = [f"--config.{field}" for field in fields]
  config = f"{config}:{variant}" if variant else str(config)
  return ["--config", config, "--workdir", str(workdir), *flags]


def start(workdir, *fields, variant="", config=CONFIG, **env):
  args = arguments(workdir, *fields, variant=variant, config=config)
  return subprocess.Popen(
    [sys.executable, "-m", "kd_jax.main", *args],
    cwd=ROOT,
    env={**os.environ, **ENV, **env},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process):
  """(exit status, standard error)."""
  _, error = process.communicate(timeout=PATIENCE)
  return process.returncode, error


def complete(workdir, *fields, **how):
  status, error = finish(start(workdir, *fields, **how))
  assert status == 0, error
  return error


def here(workdir, *fields, **how):
  """As `complete`, without the seconds that a new process takes to start."""
  error = io.StringIO()
  handler = logging.StreamHandler(error)  # absl may hold an earlier stderr
  logging.getLogger("absl").addHandler(handler)
  try:
    with contextlib.redirect_stderr(error):
      status = main.main(arguments(workdir, *fields, **how))
  finally:
    logging.getLogger("absl").removeHandler(handler)
  assert status == 0, error.getvalue()
  return error.getvalue()


def interrupt(when, number, workdir, *fields, **how):
  """Sends a signal as soon as `when(workdir)`; (exit status, errors)."""
  process = start(workdir, *fields, **how)
  give_up = time.monotonic() + PATIENCE
  while process.poll() is None and not when(workdir):
    assert time.monotonic() < give_up, "never came so far"
    time.sleep(0.001)
  process.send_signal(number)
  return finish(process)


def kill(when, *args, **kwargs):
  """As `interrupt`, and the process must have been hit before its end."""
  status, error = interrupt(when, signal.SIGKILL, *args, **kwargs)
  assert status == -signal.SIGKILL, error


def lines(workdir):
  path = workdir / "metrics.jsonl"
  return path.read_text().count("\n") if path.exists() else 0


def checkpoints(workdir):
  return sorted(
    int(p.name) for p in workdir.glob("checkpoints/[0-9]*") if whole(p)
  )


def unfinished(workdir):
  return [p for p in workdir.glob("checkpoints/*tmp*") if not whole(p)]


def whole(step):
  return step.name.isdigit() and (step / "commit_success.txt").exists()


def record(workdir, step):
  """What a checkpoint says about its run."""
  path = workdir / "checkpoints" / str(step) / "record" / "metadata"
  return json.loads(path.read_text())["record"]


def state(workdir, step):
  """{path: array} of a checkpoint, read without this package."""
  checkpointer = ocp.StandardCheckpointer()
  tree = checkpointer.restore(workdir / "checkpoints" / str(step) / "state")
  checkpointer.close()
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(p): np.asarray(x) for p, x in leaves}
