"""What the heads for segmentation share.

Layers start as PyTorch's do by default, U(-1, 1) / sqrt(fan_in) for kernels
and biases, since that is what the published heads were trained from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, maps
from kd_jax.models.mobile.mbconv import ACTIVATIONS
from kd_jax.types import STAGES, Specs, Taps

LAST = "last"
"""Stands for the map that the classifier pools: 'final' where the student has
it, else 'stage4'."""

PYRAMID = STAGES[1:-1]
"""The stages that make a pyramid of maps."""


class MapHead(nn.Module):
  """Logits for every position of a map; a head subclasses it.

  A head reads maps by the names of the student's taps, or `LAST`.

  Attributes:
    num_classes: number of classes.
    dropout: share of the channels that are dropped before the classifier;
      needs the rng collection 'dropout' in training.
    dtype: compute dtype; None promotes input and parameters.
  """

  num_classes: int
  dropout: float = 0.1
  dtype: layers.Dtype = None

  def __post_init__(self) -> None:
    # Configs hold lists; a module has to be hashable.
    for field in dataclasses.fields(self):
      value = self.__dict__.get(field.name)
      if isinstance(value, list):
        object.__setattr__(self, field.name, tuple(value))
    super().__post_init__()
    at_least("num_classes", self.num_classes, 1)
    if not 0 <= self.dropout < 1:
      raise ValueError(f"head.dropout is {self.dropout}, not in [0, 1)")

  @property
  def needs(self) -> tuple[str, ...]:
    """Names of the maps that it reads."""
    raise NotImplementedError

  def reads(self, specs: Specs) -> None:
    """Whether the head fits the student.

    Args:
      specs: of the student's taps, as they are: maps, or tokens (n, t, c).

    Raises:
      ValueError: it does not.
    """
    for name in self.needs:
      found = specs.get(tap_of(name, specs))
      if found is None or len(found.shape) not in (3, 4):
        raise ValueError(
          f"the head reads {name!r}, which is no map of this student; it has "
          f"{[k for k, v in specs.items() if len(v.shape) in (3, 4)]}"
        )

  def __call__(
    self, taps: Taps, *, train: bool
  ) -> Float[Array, "n h w classes"]:
    """Logits.

    Args:
      taps: the student's, those of `needs` as maps.
      train: batch statistics and dropout.
    """
    raise NotImplementedError

  def classify(self, x: Array, train: bool) -> Array:
    """Dropout of whole channels, and a 1x1 convolution."""
    drop = nn.Dropout(self.dropout, broadcast_dims=(1, 2), name="drop")
    x = drop(x, deterministic=not train)
    return conv(x, self.num_classes, dtype=self.dtype, name="classifier")

  def conv_norm(
    self, name: str, features: int, size: int, act: str = "relu"
  ) -> ConvNorm:
    """A `ConvNorm` in the dtype of the head."""
    return ConvNorm(features, size, act, self.dtype, name=name)


class PyramidHead(MapHead):
  """A head that reads the four stages of a network with strides."""

  @property
  def needs(self) -> tuple[str, ...]:
    """See `MapHead`."""
    return PYRAMID

  def reads(self, specs: Specs) -> None:
    """See `MapHead`; the maps must be a pyramid."""
    super().reads(specs)
    shapes = [specs[name].shape for name in PYRAMID]
    kind = type(self).__module__.rpartition(".")[2]
    wanted = f"the head {kind!r} needs four maps of falling resolution; "
    if any(len(shape) == 3 for shape in shapes):
      raise ValueError(
        f"{wanted}this student has tokens of one size. Set "
        "--config.head.name=light"
      )
    sizes = [shape[1:3] for shape in shapes]
    if sizes != sorted(sizes, reverse=True) or sizes[0] == sizes[-1]:
      raise ValueError(
        f"{wanted}this student's are {sizes}. Set --config.head.name=light"
      )


class ConvNorm(nn.Module):
  """Convolution without bias, batch normalisation, activation.

  Attributes:
    features: number of output channels.
    size: width of the window.
    act: name of the activation, of `models.mobile.mbconv.ACTIVATIONS`.
    dtype: compute dtype.
  """

  features: int
  size: int = 1
  act: str = "relu"
  dtype: layers.Dtype = None

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """Applies the three; parameters `conv` and `bn`."""
    y = conv(
      x,
      self.features,
      self.size,
      use_bias=False,
      dtype=self.dtype,
      name="conv",
    )
    norm = layers.BatchNorm(self.dtype, name="bn")
    return ACTIVATIONS[self.act](norm(y, train=train))


class PyramidPooling(nn.Module):
  """Averages over grids of several sizes, brought back to the map's size.

  The pyramid pooling module of PSPNet (arXiv:1612.01105, section 3.2).

  Attributes:
    bins: sides of the grids.
    features: channels of each.
    act: see `ConvNorm`.
    align_corners: see `maps.resize_matrix`.
    dtype: compute dtype.
  """

  bins: tuple[int, ...]
  features: int
  act: str = "relu"
  align_corners: bool = True
  dtype: layers.Dtype = None

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """The map and what was pooled, side by side; parameters `bin1`, ..."""
    found = [x]
    for side in self.bins:
      layer = ConvNorm(
        self.features, 1, self.act, self.dtype, name=f"bin{side}"
      )
      y = layer(maps.pool(x, side), train=train)
      size = maps.size_of(x)
      y = maps.resize(y, size, align_corners=self.align_corners)
      found.append(y.astype(x.dtype))
    return jnp.concatenate(found, -1)


def conv(
  x: Float[Array, "n h w c"],
  features: int,
  size: int = 1,
  *,
  use_bias: bool = True,
  dtype: layers.Dtype,
  name: str,
) -> Float[Array, "n h w d"]:
  """Convolution of the module that is being called, PyTorch's initialisation.

  Args:
    x: maps.
    features: number of output channels.
    size: width of the window.
    use_bias: add a bias.
    dtype: compute dtype.
    name: of its parameters.
  """
  init = layers.torch_linear_init(size * size * x.shape[-1])
  layer = layers.Conv(
    features,
    size,
    dtype=dtype,
    use_bias=use_bias,
    kernel_init=init,
    bias_init=init,
    name=name,
  )
  return layer(x)


def same_size(
  found: Sequence[Float[Array, "n _ _ _"]],
) -> Float[Array, "n h w d"]:
  """Maps side by side, at the size of the largest, corners not aligned."""
  size = max(map(maps.size_of, found))
  resized = [maps.resize(x, size, align_corners=False) for x in found]
  return jnp.concatenate(resized, -1)


def tap_of(name: str, offered: Collection[str]) -> str:
  """The tap that a name in `MapHead.needs` stands for."""
  if name != LAST:
    return name
  return "final" if "final" in offered else "stage4"


def map_of(name: str, taps: Taps) -> Float[Array, "n h w c"]:
  """The map of that name, see `tap_of`."""
  return taps[tap_of(name, taps)]


def at_least(name: str, value: int, least: int) -> None:
  """Raises ValueError if a field of a head is too small."""
  if value < least:
    raise ValueError(f"head.{name} is {value}; it must be at least {least}")


def check_bins(bins: tuple[int, ...]) -> None:
  """Raises ValueError unless they are different positive integers."""
  good = bins and all(isinstance(b, int) and b > 0 for b in bins)
  if not good or len(set(bins)) != len(bins):
    raise ValueError(
      f"head.bins is {bins!r}; it must hold different positive integers"
    )


def check_act(act: str) -> None:
  """Raises ValueError unless there is such an activation."""
  backbone.one_of("head.act_layer", act, ("relu", "relu6"))


def check_names(names: tuple[str, ...]) -> None:
  """Raises ValueError unless there are some and no name comes twice."""
  if not names or len(set(names)) != len(names):
    raise ValueError(
      f"head.taps is {names!r}; it must name one tap or more, each once"
    )
