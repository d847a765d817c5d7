"""Stage-wise distillation: the stages of the backbone, one after the other.

Gao et al., arXiv:1812.01819; docs/stagewise.md says what is known of the
recipe. Images have no labels here, so the classifier's phase is left out.
"""

import math

from kd_jax.door.fields import STAGES, STAGEWISE
from kd_jax.door.pair import Pair, Settings

_FITTED = 10_000  # images for the statistics of the teacher's channels


def settings(pair: Pair) -> Settings:
  """100 passes of SGD, rate .1 for 256 images, as configs/stagewise_r18.py."""
  few = 0 if pair.images <= _FITTED else _FITTED
  sections = {
    "method": STAGEWISE,
    "losses": {"stem": 0.0, **dict.fromkeys(STAGES, 1.0), "ce": 0.0},
    "optim": {"nesterov": True, "schedule": "cosine", "warmup_frac": 0.05},
    "fit": {"examples": few, "passes": _passes(pair)},
  }
  return Settings(sections, passes=100, rate=0.2)


def _passes(pair: Pair) -> int:
  """Over few images, so that every stage has two positions per channel."""
  found = [
    -(-2 * shape[-1] // (math.prod(shape[1:-1]) * pair.images))
    for shape in (pair.teacher[tap].shape for tap in STAGES if pair.teacher)
  ]
  return max(found, default=1)
