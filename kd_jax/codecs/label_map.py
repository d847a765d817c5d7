"""ReLabel's label map: what the teacher sees in every cell of an image.

Yun et al., Re-labeling ImageNet: from Single to Multi-Labels, from Global to
Localized Labels (CVPR 2021): the classifier without pooling gives every cell of
the last map its own scores, of which the largest are kept. A map is stored once
per image; what belongs to a crop is pooled from it by RoIAlign.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from kd_jax.codecs import base, roi
from kd_jax.types import Teacher

MAP = "label_map"
ORDERS = ("xy", "code")


@dataclasses.dataclass(frozen=True)
class Codec(base.CodecBase):
  """Stores the top scores of every cell, before the softmax.

  The tap 'logits' of a crop comes back as the pooled scores, with zero for
  every class that is in no cell, as the authors have it. Mirroring a crop does
  not change it.

  Attributes:
    top: classes per cell.
    dtype: of the scores, 'float16' or 'float32'.
    corner_order: 'xy' pools the cells that a crop covers. 'code' swaps both
      axes as the authors' trainer does, which is right only for maps that are
      stored transposed; theirs may be, ours are not.

  Raises:
    ValueError: a value that is not allowed.
  """

  taps = ("stage4",)
  per_image: ClassVar[bool] = True
  mixes: ClassVar[bool] = True

  top: int = 5
  dtype: str = "float16"
  corner_order: str = "xy"

  def __post_init__(self) -> None:
    base.one_of("dtype", self.dtype, ("float32", "float16"))
    base.one_of("corner_order", self.corner_order, ORDERS)
    if self.top < 1:
      raise ValueError(f"codec.top is {self.top}; it must be at least 1")

  def collect(self, teacher: Teacher) -> dict[str, Array]:
    """The classifier's scores in every cell of the teacher's last map.

    Raises:
      ValueError: a teacher without such a map, or whose head cannot run on
        its own.
    """
    last = teacher.taps.get("stage4", jnp.zeros(()))
    if teacher.resume is None or last.ndim != 4:
      raise ValueError(
        "the codec 'label_map' runs the teacher's head on every cell of the "
        f"map 'stage4', and this teacher offers {sorted(teacher.taps)} with "
        f"'stage4' of the shape {last.shape}. Use a convolutional network "
        "with --config.teacher.source=online."
      )
    n, h, w, c = last.shape
    cells = teacher.resume("head", last.reshape(n * h * w, 1, 1, c))["logits"]
    return {MAP: cells.reshape(n, h, w, -1)}

  def mixed(
    self, taps: Mapping[str, Array], partner: Array, share: Array
  ) -> dict[str, Array]:
    """See `base.LabelCodec.mixed`, at temperature 1."""
    return base.mixed_logits(taps["logits"], partner, share, 1.0)

  def arrays(self, widths: base.Widths) -> base.Arrays:
    """See `base.CodecLike`; one entry per image."""
    height, width, classes = widths[MAP]
    if self.top > base.classes({"logits": (classes,)}):
      raise ValueError(
        f"codec.top is {self.top}; the teacher has {classes} classes"
      )
    if self.corner_order == "code" and height != width:
      raise ValueError(
        f"corner_order='code' swaps the axes of a {height} x {width} map, "
        "which must be square; use 'xy'"
      )
    shape = (height, width, self.top)
    return {"class": (shape, "uint16"), "score": (shape, self.dtype)}

  def encode(
    self, constants: Mapping[str, Array], taps: Mapping[str, Array]
  ) -> dict[str, Array]:
    """See `base.CodecLike`; the largest score first."""
    del constants
    scores, index = jax.lax.top_k(taps[MAP].astype(jnp.float32), self.top)
    limit = float(jnp.finfo(self.dtype).max)
    kept = jnp.clip(scores, -limit, limit).astype(self.dtype)
    return {"class": index.astype(jnp.uint16), "score": kept}

  def decode(
    self,
    constants: Mapping[str, Array],
    stored: Mapping[str, Array],
    widths: base.Widths,
  ) -> dict[str, Array]:
    """See `base.CodecLike`.

    Args:
      constants: none.
      stored: the maps, and 'corners' (n, 4): top, left, bottom and right of
        each crop as shares of the image's sides, float32.
      widths: of the map.
    """
    del constants
    height, width, classes = widths[MAP]
    rows, columns = (0, 2), (1, 3)
    if self.corner_order == "code":
      rows, columns = columns, rows
    corners = stored["corners"]
    down = roi.axis_weights(*(corners[:, i] for i in rows), cells=height)
    across = roi.axis_weights(*(corners[:, i] for i in columns), cells=width)
    share = down[:, :, None, None] * across[:, None, :, None]
    score = share * stored["score"].astype(jnp.float32)
    index = stored["class"].astype(jnp.int32)
    rows = jnp.arange(len(corners))[:, None, None, None]
    pooled = jnp.zeros((len(corners), classes)).at[rows, index].add(score)
    return {"logits": pooled}
