"""What the configs of stage-wise distillation share.

The method is arXiv:1812.01819, of which only abstracts could be read: no number
below is the authors'. docs/stagewise.md says what is known and what is chosen.
"""

from ml_collections import ConfigDict

from configs.common import STAGES, STAGEWISE, base, choose, smoke

VARIANTS = ("", "joint", "smoke", "joint_smoke")


def stagewise(*, epoch: int, epochs: int, head_epochs: int) -> ConfigDict:
  """An unlocked config with the method's defaults.

  Args:
    epoch: steps of one.
    epochs: for all stages together.
    head_epochs: for the classifier; 0 leaves it out.
  """
  config = base()
  config.steps = (epochs + head_epochs) * epoch
  config.method = ConfigDict(STAGEWISE)
  if head_epochs:
    config.method.head_frac = head_epochs / (epochs + head_epochs)
  # A stage with the weight 0 learns together with the next one.
  weights = {"stem": 0.0, **dict.fromkeys(STAGES, 1.0)}
  config.losses = ConfigDict({**weights, "ce": float(bool(head_epochs))})
  config.optim.update(
    {"nesterov": True, "schedule": "cosine", "warmup_frac": 0.05}
  )
  config.eval.update({"every": 5 * epoch, "limit": 10_000})
  config.checkpoint.every = epoch
  # Every position of a map counts as an example of its own.
  config.fit.examples = 50_000
  return config


def finish(config: ConfigDict, variant: str) -> ConfigDict:
  """Applies `joint` and `smoke`, and locks."""
  choose(variant, VARIANTS)
  config.method.joint = variant.startswith("joint")
  if variant.endswith("smoke"):
    tiny(config)
  config.lock()
  return config


def tiny(config: ConfigDict) -> None:
  """The same phases in a few steps each, on synthetic images."""
  smoke(config)
  config.steps = 15
  config.teacher.name = "resnet18"
  network = {"layers": (1, 1, 1, 1), "stem_width": 8}
  classes = 4 if config.losses.ce else 0
  config.teacher.overrides = ConfigDict(
    {**network, "channels": (8, 8, 16, 16), "num_classes": 0}
  )
  config.student.overrides = ConfigDict(
    {**network, "channels": (8, 8, 8, 16), "num_classes": classes}
  )
  config.method.head_frac = 0.2
  config.eval.update({"evals": (), "judge": {"name": ""}})
