"""The maps that both stages look at."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from kd_jax.models.blocks import maps as maps_lib
from kd_jax.transfer.detection import proposals
from kd_jax.transfer.detection.forms import base
from kd_jax.transfer.detection.ops import anchors, levels, roi_align


@dataclasses.dataclass(frozen=True)
class Pyramid:
  """Maps of a batch, finest first.

  Attributes:
    form: whose levels they are.
    maps: of every level.
    strides: pixels of the canvas per position of each.
    size: height and width of each image on its canvas.
  """

  form: base.BaseForm
  maps: Sequence[Float[Array, "n _ _ c"]]
  strides: Sequence[float]
  size: Int[Array, "n 2"]

  @property
  def anchors(self) -> list[Float[np.ndarray, "_ 4"]]:
    """Of every level, see `ops.anchors.grid`."""
    every = zip(self.maps, self.strides, self.form.cells, strict=True)
    return [
      anchors.grid(maps_lib.size_of(x), step, cell) for x, step, cell in every
    ]

  def propose(
    self,
    objectness: Sequence[Float[Array, "n _"]],
    deltas: Sequence[Float[Array, "n _ 4"]],
    *,
    threshold: float,
    learning: bool,
  ) -> proposals.Proposals:
    """Proposals of every image.

    Args:
      objectness: of the anchors of each level.
      deltas: of the same.
      threshold: see `proposals.propose`.
      learning: as many as in training.
    """
    which = 0 if learning else 1
    propose = functools.partial(
      proposals.propose,
      anchors=self.anchors,
      before=self.form.pre_nms[which],
      after=self.form.post_nms[which],
      threshold=threshold,
    )
    return jax.vmap(
      lambda scores, moves, size: propose(scores, moves, size=size)
    )(objectness, deltas, self.size)

  def pooled(
    self, boxes: Float[Array, "n r 4"], bins: int
  ) -> Float[Array, "nr bins bins c"]:
    """What is in regions, image by image (arXiv:1703.06870, section 3)."""
    number = self.form.pooled_levels
    scales = [1 / stride for stride in self.strides[:number]]
    maps = tuple(self.maps[:number])

    def one(
      maps: Sequence[Float[Array, "_ _ c"]], boxes: Float[Array, "r 4"]
    ) -> Float[Array, "r bins bins c"]:
      if number == 1:
        return roi_align.pool(maps[0], boxes, scales[0], bins)
      # Level k has stride 2^k: arXiv:1612.03144, section 4.2.
      lowest = round(math.log2(self.strides[0]))
      level = levels.of(boxes, lowest, lowest + number - 1) - lowest
      return roi_align.pool_levels(maps, scales, boxes, level, bins)

    found = jax.vmap(one)(maps, boxes)
    return found.reshape(-1, *found.shape[2:])
