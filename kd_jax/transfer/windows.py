"""Predicts masks in sliding windows, as the authors' semseg fork does.

Its tool/test.py (github.com/CVMI-Lab/KDEP) works image by image on the host;
here a batch of canvases stays on the device, and all shapes are static, so that
everything from pixels to counts is one compiled function. Per scale: windows
are cut out, a network says what is in each of them and in its mirror image, the
mean of the two softmax outputs is added to the canvas, and sums are divided by
the number of windows that saw a pixel. Scales meet at the mask's own size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Num

from kd_jax.transfer import confusion
from kd_jax.types import Array

Apply = Callable[[Num[Array, "n h w 3"]], Float[Array, "n h w classes"]]
"""Windows, of the dtype of the canvas, -> logits of the same size."""


class View(Protocol):
  """One scale of a batch, see `data.windows`."""

  @property
  def image(self) -> Num[Array, "n h w 3"]:
    """Resized images at the top left of canvases."""
    ...

  @property
  def start(self) -> Int[Array, "n k 2"]:
    """Top and left of the windows."""
    ...

  @property
  def weight(self) -> Float[Array, "n k"]:
    """0 = there is no such window."""
    ...

  @property
  def size(self) -> Int[Array, "n 2"]:
    """Height and width of the resized image."""
    ...


class DenseBatch(Protocol):
  """Images at all scales and their masks, see `data.windows`."""

  @property
  def views(self) -> Sequence[View]:
    """One per scale."""
    ...

  @property
  def label(self) -> Int[Array, "n h w"]:
    """Masks at the top left, -1 beyond and where ignored."""
    ...

  @property
  def size(self) -> Int[Array, "n 2"]:
    """Height and width of the masks."""
    ...

  @property
  def mask(self) -> Float[Array, " n"]:
    """0 = padding row."""
    ...


def probabilities(
  apply: Apply, view: View, crop: tuple[int, int], *, mirror: bool
) -> Float[Array, "n h w classes"]:
  """What a network says about every pixel of the canvases of one scale.

  The k-th windows of all images run together, one k after the other: memory
  does not grow with the number of windows. An image that is smaller than a
  window is moved to the middle of it, and what is said about it back again.

  Args:
    apply: the network.
    view: canvases and windows. No window may leave the canvas; those of a side
      that is smaller than a window start at 0.
    crop: height and width of a window.
    mirror: also look at every window from left to right.

  Returns:
    Means over windows, 0 where no window was. Without any, all are 0.
  """
  shift = jnp.maximum(jnp.array(crop) - view.size, 0) // 2
  image = _moved(jnp.asarray(view.image), shift)
  classes = jax.eval_shape(
    apply, jax.ShapeDtypeStruct((1, *crop, 3), image.dtype)
  ).shape[-1]
  found = jnp.zeros((*image.shape[:3], classes))
  count = jnp.zeros((*image.shape[:3], 1))

  def window(
    sums: tuple[Array, Array], place: tuple[Array, Array]
  ) -> tuple[tuple[Array, Array], None]:
    start, weight = place
    cut = jax.vmap(lambda x, at: _cut(x, at, crop))(image, start)
    said = _softmax(apply, cut, mirror=mirror)
    weight = weight.astype(jnp.float32)[:, None, None, None]
    seen = jnp.broadcast_to(weight, (*said.shape[:3], 1))
    pasted = jax.vmap(_pasted)
    return (
      pasted(sums[0], said * weight, start),
      pasted(sums[1], seen, start),
    ), None

  places = (jnp.swapaxes(view.start, 0, 1), jnp.swapaxes(view.weight, 0, 1))
  (found, count), _ = jax.lax.scan(window, (found, count), places)
  mean = jnp.where(count > 0, found / jnp.where(count > 0, count, 1), 0)
  return _moved(mean, -shift)


def at_label_size(
  found: Float[Array, "n h w classes"],
  size: Int[Array, "n 2"],
  label_size: Int[Array, "n 2"],
  out: tuple[int, int],
) -> Float[Array, "n oh ow classes"]:
  """Resizes the valid part of every canvas to the size of its mask.

  Bilinear as in `cv2.resize`: pixels are squares (their centres lie at halves),
  edges are clamped, and nothing is smoothed before shrinking.

  Args:
    found: canvases; valid at the top left.
    size: height and width of the valid parts.
    label_size: height and width of the masks.
    out: height and width of the new canvases.

  Returns:
    New canvases; beyond a mask they hold repeated edges.
  """
  rows = jax.vmap(lambda a, b: _line(found.shape[1], a, b, out[0]))
  columns = jax.vmap(lambda a, b: _line(found.shape[2], a, b, out[1]))
  # In full float32: near ties decide about classes.
  return jnp.einsum(
    "nyh,nhwc,nxw->nyxc",
    rows(size[:, 0], label_size[:, 0]),
    found,
    columns(size[:, 1], label_size[:, 1]),
    precision=jax.lax.Precision.HIGHEST,
  )


def scores(
  apply: Apply, batch: DenseBatch, crop: tuple[int, int], *, mirror: bool
) -> Float[Array, "n h w classes"]:
  """Probabilities on the canvases of the masks, a mean over all scales."""
  _, high, wide = batch.label.shape
  found = [
    at_label_size(
      probabilities(apply, view, crop, mirror=mirror),
      view.size,
      batch.size,
      (high, wide),
    )
    for view in batch.views
  ]
  return sum(found[1:], found[0]) / len(found)


def predictions(
  apply: Apply, batch: DenseBatch, crop: tuple[int, int], *, mirror: bool
) -> Int[Array, "n h w"]:
  """The most probable class of every pixel of the masks' canvases, int32."""
  return jnp.argmax(scores(apply, batch, crop, mirror=mirror), -1)


def counted(
  counts: confusion.Counts,
  prediction: Int[Array, "n h w"],
  batch: DenseBatch,
) -> confusion.Counts:
  """Adds a batch's predictions to a confusion matrix; padding is left out."""
  real = batch.mask[:, None, None] > 0
  return confusion.add(counts, prediction, jnp.where(real, batch.label, -1))


def _moved(
  canvas: Num[Array, "n h w c"], by: Int[Array, "n 2"]
) -> Num[Array, "n h w c"]:
  """Canvases moved down and right; what leaves them comes in opposite."""
  return jax.vmap(lambda x, d: jnp.roll(x, (d[0], d[1]), (0, 1)))(canvas, by)


def _cut(
  image: Num[Array, "h w 3"], start: Int[Array, " 2"], crop: tuple[int, int]
) -> Num[Array, "ch cw 3"]:
  return jax.lax.dynamic_slice(image, _corner(start), (*crop, image.shape[-1]))


def _corner(start: Int[Array, " 2"]) -> tuple[Array, ...]:
  """Where a window begins, in the three axes of a canvas."""
  top, left = start
  return top, left, jnp.zeros_like(top)


def _pasted(
  canvas: Float[Array, "h w c"],
  part: Float[Array, "ch cw c"],
  start: Int[Array, " 2"],
) -> Float[Array, "h w c"]:
  """The canvas with the part added to it."""
  before = jax.lax.dynamic_slice(canvas, _corner(start), part.shape)
  return jax.lax.dynamic_update_slice(canvas, before + part, _corner(start))


def _softmax(
  apply: Apply, windows: Num[Array, "n h w 3"], *, mirror: bool
) -> Float[Array, "n h w classes"]:
  """Of the windows, or the mean with what their mirror images give."""
  if not mirror:
    return jax.nn.softmax(apply(windows).astype(jnp.float32), -1)
  # Side by side, so that both stay on the device that has the image.
  pairs = jnp.stack([windows, windows[:, :, ::-1]], 1)
  logits = apply(pairs.reshape(-1, *pairs.shape[2:]))
  said = jax.nn.softmax(logits.astype(jnp.float32), -1)
  said = said.reshape(-1, 2, *said.shape[1:])
  return (said[:, 0] + said[:, 1, :, ::-1]) / 2


def _line(
  canvas: int, source: Int[Array, ""], target: Int[Array, ""], out: int
) -> Float[Array, "out canvas"]:
  """The matrix that resizes `source` valid entries of a line to `target`.

  Entry d looks at (d + 1/2) source / target - 1/2. In whole numbers over
  2 target, for float32 has too few digits at large sizes.
  """
  source, target = jnp.maximum(source, 1), jnp.maximum(target, 1)
  unit = 2 * target
  place = (2 * jnp.arange(out) + 1) * source - target
  place = jnp.clip(place, 0, unit * (source - 1))[:, None]
  share = (place % unit) / unit
  at = jnp.arange(canvas) - place // unit
  return jnp.where(at == 0, 1 - share, jnp.where(at == 1, share, 0.0))
