"""What is imported by whom, as the modules of fresh processes tell."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

TELL = "import json, sys; print(json.dumps(sorted(sys.modules)))"
# What only some tasks need, and whatever takes a tenth of a second or more.
DEAR = {
  *("jax", "jaxlib", "flax", "optax", "orbax", "grain", "tensorstore"),
  *("numpy", "scipy", "sklearn", "pandas", "pyarrow", "matplotlib", "cv2"),
  *("PIL", "pycocotools", "tensorboardX", "tensorflow", "torch", "timm"),
  *("tensorflow_datasets", "torchvision", "huggingface_hub", "transformers"),
  *("wandb", "mlflow", "boto3", "ml_collections"),
}
# Of these a run makes use before its first step.
STEP = {
  *("jax", "jaxlib", "flax", "optax", "orbax", "grain", "tensorstore"),
  *("numpy", "cv2", "PIL", "ml_collections"),
}


def packages(code):
  """First names of what a fresh process has imported after `code`."""
  said = subprocess.run(
    [sys.executable, "-c", f"{code}\n{TELL}"],
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  return {name.partition(".")[0] for name in json.loads(said.splitlines()[-1])}


@pytest.mark.parametrize(
  "code",
  [
    "import kd_jax",
    "from kd_jax import main, cli",
    "from kd_jax import main\ntry: main.main(['--help'])\n"
    "except SystemExit: pass",
    "from kd_jax import cli\ntry: cli.main(['distill', '--help'])\n"
    "except SystemExit: pass",
  ],
  ids=("package", "programs", "main", "kd-jax"),
)
def test_help_needs_nothing_dear(code):
  found = packages(code)
  assert "kd_jax" in found
  assert not found & DEAR


def test_training_needs_no_more_than_it_uses():
  code = "import kd_jax.tasks.pretrain, kd_jax.tasks.suite"
  found = packages(code)
  assert found & DEAR == STEP
