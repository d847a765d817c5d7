"""The rules that detections are judged by, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from kd_jax.transfer.average_precision import coco, voc
from kd_jax.transfer.average_precision.detections import Detections
from kd_jax.transfer.average_precision.judged import Judged
from kd_jax.transfer.average_precision.truth import Truth

Rule = Callable[[Truth, Detections], list[Judged]]


def _coco(truth: Truth, said: Detections) -> list[Judged]:
  """Boxes, and masks where both sides have them."""
  found = [coco.evaluate(truth, said)]
  # Without any detection nothing says whether there would have been masks.
  if truth.masks is not None and (
    said.masks is not None or not len(said.image)
  ):
    found.append(coco.evaluate(truth, said, "masks"))
  return found


RULES: Mapping[str, Rule] = MappingProxyType(
  {
    "coco": _coco,
    "voc2007": lambda truth, said: [voc.evaluate(truth, said, 11)],
    "voc": lambda truth, said: [voc.evaluate(truth, said, 0)],
  }
)
"""'coco' has AP over IoU .5 to .95; 'voc2007' takes 11 points of the curve,
'voc' the area below it, as VOC does from 2010 on."""


def check(name: str, figure: str, *, masks: bool) -> None:
  """Whether there is such a rule, with such a figure.

  Args:
    name: of `RULES`.
    figure: that is to count.
    masks: whether the network predicts masks.

  Raises:
    ValueError: there is not.
  """
  if name not in RULES:
    raise ValueError(
      f"eval.rules is {name!r}; detections are judged by one of "
      f"{sorted(RULES)}. Set --config.eval.rules"
    )
  offered = ["ap", "ap50", "ap75"]
  if masks and name == "coco":
    offered += [f"mask_{figure}" for figure in offered]
  if figure not in offered:
    raise ValueError(
      f"eval.figure is {figure!r}; with eval.rules={name} it can be one of "
      f"{offered}. Set --config.eval.figure"
    )
