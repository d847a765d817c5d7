r"""Writes the student of a run alone, for PyTorch, JAX and other programs.

Command: python -m kd_jax.main --config configs/export.py \
  --config.workdir=runs/mine
Expected: timm/, flax/, stablehlo/ and README.md in RUN/export, or with a
  --config.format its folder; docs/export.md.
"""

from ml_collections import ConfigDict

from configs.common import choose


def get_config(variant: str = "") -> ConfigDict:
  """Which run, and where to."""
  choose(variant, ("",))
  config = ConfigDict()
  config.task = "export"
  config.workdir = ""  # the folder of the run
  config.output = ""  # '': export/ in that folder
  config.format = ""  # onnx, detectron2, mmdetection, torchvision; '': ours
  config.form = ""  # where in a detector of that format; '': the usual place
  config.fused = False  # merge branches and batch normalisation
  # Of a detector: (height, width) of its canvas; (): that of its evaluation.
  config.canvas = ()
  config.lock()
  return config
