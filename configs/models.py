r"""Lists the models: size, cost, taps, how far they are checked.

Command: python -m kd_jax.main --config configs/models.py \
  --config.match='resnet*'
Expected: a table on standard output; all models take some minutes.
"""

from ml_collections import ConfigDict

from configs.common import choose


def get_config(variant: str = "") -> ConfigDict:
  """Which models, and where to."""
  choose(variant, ("",))
  config = ConfigDict()
  config.task = "models"
  config.match = "*"  # pattern of names, '*' and '?' as in a shell
  # timm's pretrained tags, where timm is installed: "count" says how many load
  # and which do not, "list" prints a line for each, "" does not ask.
  config.tags = "count"
  config.output = ""  # a .md file for the table in Markdown
  config.lock()
  return config
