"""ScaleKD: maps through cross-attention and the teacher's own last blocks.

Fan et al., NeurIPS 2024. Features alone, since images have no labels here. The
authors' weights are .08 and .06 for Swin's 49 positions; a term sums over
positions, so teachers with more of them get less weight. Passes and rate are
those of their traditional recipe.
"""

import math

from kd_jax.align import maps
from kd_jax.door.pair import Pair, Settings
from kd_jax.types import Specs

_ORIGINAL, _ALTERNATIVE = 0.08 * 49, 0.06 * 49
_HEAD = 64  # channels of an attention head, or more


def settings(pair: Pair) -> Settings:
  """100 passes of SGD, rate .1 for 256 images.

  Raises:
    ValueError: the teacher is no transformer of this package.
  """
  if pair.teacher is None:
    raise ValueError(
      "method scalekd runs the teacher's last blocks itself, which a teacher "
      "in PyTorch does not offer; 'kd-jax models' lists those of this package, "
      "and method kdep takes any teacher"
    )
  target, resume, entry = _tail(pair.teacher)
  normalised = target == "final"
  widths = (pair.teacher[tap].shape[-1] for tap in (entry, target))
  method = {
    "name": "scalekd",
    "student": ("stage3", "final" if "final" in pair.student else "stage4"),
    "target": target,
    "resume": resume,
    "heads": tuple(map(_heads, widths)),
    "sharpness": 5.0 if normalised else 0.2,
    "norm": "batch",
    "kd_temperature": 1.0,
    "remat": "none",
  }
  grid = math.prod(maps.grid_of(pair.teacher[target].shape))
  weights = (_ORIGINAL / grid, _ALTERNATIVE / grid)
  original, alternative = (round(weight, 5) for weight in weights)
  losses: dict[str, float] = dict.fromkeys(("proxy", "final"), original)
  losses |= dict.fromkeys(("proxy_alt", "final_alt"), alternative)
  return Settings({"method": method, "losses": losses}, passes=100, rate=0.2)


def _tail(teacher: Specs) -> tuple[str, str, str]:
  """(what is compared, where the tail begins, the tap that enters it).

  Raises:
    ValueError: it is a network without such a tail.
  """
  blocks = sorted(tap for tap in teacher if tap.startswith("block"))
  if len(blocks) > 2 and len(teacher["stage4"].shape) == 3:
    return "stage4", blocks[-2], blocks[-3]
  if "final" in teacher and len(teacher["final"].shape) == 4:
    return "final", "stage4", "stage3"
  raise ValueError(
    "method scalekd takes transformers and ConvNeXts as teachers, such as "
    "swin-base or dinov2-base; method kdep takes any teacher"
  )


def _heads(width: int) -> int:
  most = max(width // _HEAD, 1)
  return next(h for h in range(most, 0, -1) if width % h == 0)
