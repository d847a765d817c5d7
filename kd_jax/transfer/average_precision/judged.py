"""What average precision says of a detector."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64


class Curve(NamedTuple):
  """Precision against recall of one class at IoU .5.

  Attributes:
    recall: rising; empty where the class does not occur.
    precision: the highest that is reached at this recall or above.
    score: of the detection at which it is reached; 0 where it is not.
  """

  recall: Float[np.ndarray, " r"]
  precision: Float[np.ndarray, " r"]
  score: Float[np.ndarray, " r"]


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
  """Figures in [0, 1], over all classes and of each.

  Attributes:
    rule: what they follow, for people: 'COCO, boxes'.
    figures: {name: value} of the whole; what no object decides is left out.
    by_class: {name: a value per class}, NaN where a class does not occur.
    objects: of every class that were to be found.
    curves: of every class.
  """

  rule: str
  figures: dict[str, float]
  by_class: dict[str, Float[np.ndarray, " classes"]]
  objects: Int64[np.ndarray, " classes"]
  curves: tuple[Curve, ...]


def no_curve() -> Curve:
  """Of a class that does not occur."""
  return Curve(np.zeros(0), np.zeros(0), np.zeros(0))
