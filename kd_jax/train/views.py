"""What the step does to images before the networks see them.

Cutting views out of whole images (`Preprocess.canvas`), uint8 -> [0, 1], mixup
(arXiv:1710.09412) and CutMix (arXiv:1905.04899).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kd_jax.data.augment import canvas
from kd_jax.data.views import Views
from kd_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class Cut:
  """How views are cut out of whole images; see `canvas.crop_resize`.

  Attributes:
    size: side of a view, pixels.
    interpolation: 'bilinear' or 'bicubic'.
    others: (name, how) of the same views in other sizes.
  """

  size: int = 224
  interpolation: str = "bilinear"
  others: tuple[tuple[str, Cut], ...] = ()


@dataclasses.dataclass(frozen=True)
class Mix:
  """Mixing every image with another one of its batch.

  Images are mixed in pairs of neighbours, which a shuffled batch makes random
  and which lie on the same device. One weight and one kind for a microbatch.
  Teacher and student see the same mixed images.

  Attributes:
    mixup: alpha of Beta(alpha, alpha) for mixup; 0 is none.
    cutmix: the same for CutMix.
    prob: probability that a microbatch is mixed.
    switch: probability of CutMix where both are possible.
    smoothing: probability that labels give to all classes alike.

  Raises:
    ValueError: a value is out of range.
  """

  mixup: float = 0.0
  cutmix: float = 0.0
  prob: float = 1.0
  switch: float = 0.5
  smoothing: float = 0.0

  def __post_init__(self) -> None:
    for name in ("prob", "switch", "smoothing"):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(
          f"mix.{name} is {getattr(self, name)}; it must be in [0, 1]"
        )
    for name in ("mixup", "cutmix"):
      if getattr(self, name) < 0:
        raise ValueError(
          f"mix.{name} is {getattr(self, name)}; it must be at least 0"
        )

  @property
  def mixes(self) -> bool:
    """Whether images are mixed at all."""
    return self.prob > 0 and max(self.mixup, self.cutmix) > 0


def cut_of(views: Views) -> Cut:
  """How the step cuts what `views` leaves to it."""
  others = ((name, Cut(*how)) for name, how in views.other_cuts.items())
  return Cut(views.image_size, views.train_interpolation, tuple(others))


def as_unit(image: Array) -> Array:
  """uint8 images become float32 in [0, 1]; float ones pass."""
  if jnp.issubdtype(image.dtype, jnp.integer):
    return image.astype(jnp.float32) / 255
  return image


def seen(batch: Batch, cut: Cut) -> Batch:
  """The batch as networks see it: one row per view, float images.

  Args:
    batch: as it came from the host.
    cut: used if the batch holds whole images.
  """
  if batch.geometry is None:
    return in_unit(batch)
  crops = batch.geometry.shape[1]
  return batch.replace(
    image=_cut(batch, cut),
    label=jnp.repeat(batch.label, crops),
    mask=jnp.repeat(batch.mask, crops),
    views={name: _cut(batch, how) for name, how in cut.others},
    geometry=None,
  )


def in_unit(batch: Batch) -> Batch:
  """The batch with float images in [0, 1]."""
  others = {name: as_unit(view) for name, view in batch.views.items()}
  return batch.replace(image=as_unit(batch.image), views=others)


def _cut(batch: Batch, cut: Cut) -> Float[Array, "n s s 3"]:
  """Views of the whole images of a batch, in [0, 1]."""
  crops = batch.geometry.shape[1]
  rows = batch.geometry.reshape(-1, batch.geometry.shape[-1])
  image = canvas.crop_resize(
    jnp.repeat(batch.image, crops, axis=0),
    rows[:, :4].astype(jnp.float32),
    rows[:, 4] > 0,
    size=cut.size,
    interpolation=cut.interpolation,
  )
  return image / 255


def mixed(
  batch: Batch, key: Array, mix: Mix, *, classes: int, crops: int
) -> Batch:
  """Mixes images, and labels into `target`.

  Args:
    batch: float images, one row per view.
    key: of the weight, the kind and the box.
    mix: what to do.
    classes: number of label classes; 0 if there are no labels.
    crops: views per image; neighbours are rows of different images.

  Raises:
    ValueError: an odd number of images.
  """
  target = None
  if classes:
    target = smoothed(batch.label, classes, mix.smoothing)
  if not mix.mixes:
    return batch.replace(target=target)
  share = _shares(key, mix, batch.image.shape[1:3])
  image = blend(batch.image, share[None, :, :, None], crops)
  others = {
    name: blend(view, _resized(share, view)[None, :, :, None], crops)
    for name, view in batch.views.items()
  }
  if target is not None:
    target = blend(target, share.mean(), crops)
  rows = partner(jnp.arange(len(batch.label)), crops)
  return batch.replace(
    image=image,
    target=target,
    partner=rows,
    share=share.mean(),
    views=others,
  )


def _resized(share: Float[Array, "h w"], view: Array) -> Float[Array, "t u"]:
  """The shares for a view of another size; rectangles keep hard edges."""
  return jax.image.resize(share, view.shape[1:3], "nearest")


def smoothed(
  label: Int[Array, " n"], classes: int, smoothing: float
) -> Float[Array, "n classes"]:
  """Label probabilities (arXiv:1512.00567); zeros where there is no label."""
  hard = jax.nn.one_hot(label, classes)
  share = smoothing * (label >= 0)[:, None]
  return (1 - share) * hard + share / classes


def blend(x: Float[Array, "n ..."], share: Array, crops: int) -> Array:
  """(1 - share) * x + share * partner."""
  return mixture(x, partner(x, crops), share.astype(x.dtype))


def partner(x: Float[Array, "n ..."], crops: int) -> Float[Array, "n ..."]:
  """The row that each row is mixed with: the same crop of the next image.

  Raises:
    ValueError: an odd number of images.
  """
  if x.shape[0] % (2 * crops):
    raise ValueError(
      f"mixing pairs images, and a microbatch of {x.shape[0]} views, {crops} "
      "of each image, holds an odd number of them; change --config.batch_size "
      "or switch mixing off"
    )
  pairs = x.reshape(-1, 2, crops, *x.shape[1:])
  return pairs[:, ::-1].reshape(x.shape)


def _shares(key: Array, mix: Mix, size: tuple[int, int]) -> Float[Array, "h w"]:
  """The partner's share in every pixel."""
  kind, use, weight, box = jax.random.split(key, 4)
  cut = jax.random.bernoulli(kind, _cut_prob(mix))
  alpha = jnp.where(cut, mix.cutmix, mix.mixup)
  share = 1 - jax.random.beta(weight, alpha, alpha)
  share = share * jax.random.bernoulli(use, mix.prob)
  inside = _rectangle(box, share, size)
  return jnp.where(cut, inside, share)


def _cut_prob(mix: Mix) -> float:
  if not mix.mixup or not mix.cutmix:
    return float(mix.cutmix > 0)
  return mix.switch


def _rectangle(
  key: Array, share: Array, size: tuple[int, int]
) -> Float[Array, "h w"]:
  """`rectangle` around a random pixel."""
  keys = zip(jax.random.split(key), size, strict=True)
  center = [jax.random.randint(k, (), 0, length) for k, length in keys]
  return rectangle(jnp.stack(center), share, size)


def mixture(
  x: Float[Array, "*n"], other: Float[Array, "*n"], share: Array | float
) -> Float[Array, "*n"]:
  """(1 - share) * x + share * other; a share of 0 or 1 copies."""
  return (1 - share) * x + share * other


def rectangle(
  center: Int[Array, " 2"], share: Array | float, size: tuple[int, int]
) -> Float[Array, "h w"]:
  """1 inside a rectangle of about `share` of the pixels, cut at the edges.

  Args:
    center: row and column.
    share: of the pixels, in [0, 1], before the cut.
    size: height and width of the image.
  """
  masks = []
  for middle, length in zip(center, size, strict=True):
    half = jnp.floor(length * jnp.sqrt(share)).astype(jnp.int32) // 2
    place = jnp.arange(length)
    masks.append((place >= middle - half) & (place < middle + half))
  return (masks[0][:, None] & masks[1][None]).astype(jnp.float32)
