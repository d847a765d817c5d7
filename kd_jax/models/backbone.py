"""What all model families share: fields, stages and input normalisation."""

from __future__ import annotations

import dataclasses
import functools
import numbers
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.types import STAGES, Network, Taps

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

FieldValue: TypeAlias = (
  "bool | int | float | str | DTypeLike | Sequence[FieldValue] | None"
)
"""What a field of a network may be set to."""


class Backbone(Network):
  """A network that runs stage by stage.

  A family subclasses it and defines `run_stage` and `num_features`.

  Attributes:
    num_classes: width of the classifier; 0 leaves it out: logits are pooled.
    global_pool: one of the family's `POOLS`.
    drop_path_rate: stochastic depth of the last block; earlier blocks have
      linearly less. Needs the rng collection 'dropout' in training.
    mean: subtracted from the input, per channel (after a 'bgr' flip).
    std: divides the input, per channel (after a 'bgr' flip).
    channel_order: 'rgb', or 'bgr' if the weights expect blue first. The input
      is RGB in any case; `mean` and `std` are in the order named here.
    dtype: compute dtype; None promotes input and parameters.
    interpolation: resizing that the weights were evaluated with.
    crop_pct: share of the shorter side that the evaluation crop keeps.
    crop_mode: how that crop was made: timm's 'center', 'squash' or 'border'.
      Not part of the `repr`, which identifies teachers.
    input_size: (channels, height, width) that the weights were trained with.
  """

  POOLS: ClassVar[tuple[str, ...]] = layers.POOLS
  NO_DECAY: ClassVar[tuple[str, ...]] = ()
  """Names of parameters and modules, wherever they are, that timm's
  `no_weight_decay` keeps from weight decay; vectors never decay there."""
  PARTITION: ClassVar[tuple[tuple[str, int], ...]] = (("*kernel", -1),)
  """((pattern of parameter paths, axis), ...): along which axis devices that
  work on a teacher's layer together split its kernel. The first that fits
  counts. Outputs (-1), unless the layer reads what is split already (-2)."""

  num_classes: int = 1000
  global_pool: str = "avg"
  drop_path_rate: float = 0.0
  mean: tuple[float, ...] = IMAGENET_MEAN
  std: tuple[float, ...] = IMAGENET_STD
  channel_order: str = "rgb"
  dtype: layers.Dtype = None
  interpolation: str = "bilinear"
  crop_pct: float = 0.875
  input_size: tuple[int, ...] = (3, 224, 224)
  crop_mode: str = dataclasses.field(default="center", repr=False)

  if TYPE_CHECKING:

    def __hash__(self) -> int:
      """By the fields."""
      ...

  def __post_init__(self) -> None:
    super().__post_init__()
    one_of("global_pool", self.global_pool, self.POOLS)
    one_of("channel_order", self.channel_order, ("rgb", "bgr"))
    _triple("mean", self.mean)
    _triple("std", self.std)
    if 0.0 in self.std:
      raise ValueError(f"std has a zero: {self.std}; it divides the input")
    if not 0.0 <= self.drop_path_rate < 1.0:
      raise ValueError(
        f"drop_path_rate is {self.drop_path_rate}, not in [0, 1)"
      )
    if self.num_classes < 0:
      raise ValueError(f"num_classes is {self.num_classes}; 0 is no classifier")

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    raise NotImplementedError

  @property
  def example_size(self) -> tuple[int, int]:
    """Height and width of an image that the parameters' shapes suit."""
    return (64, 64)

  def entry(self, begin: str, x: Array) -> tuple[str, dict[str, Any]]:
    """Where a run begins.

    Args:
      begin: of the call.
      x: of the call.

    Returns:
      The stage that `begin` lies in, and what `run_stage` is told beside
      `train`, in every stage of the run.

    Raises:
      ValueError: a run cannot begin there, or not with x.
    """
    del x
    one_of("begin", begin, STAGES)
    return begin, {}

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """Runs one stage; returns its output and the taps that it yields.

    A family with an `entry` of its own also takes what that says.
    """
    raise NotImplementedError

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n h w c"],
    *,
    train: bool = False,
    begin: str = "stem",
    end: str = "head",
    train_from: str = "stem",
  ) -> Taps:
    """Runs the stages `begin`..`end`, both included.

    Args:
      x: RGB images in [0, 1] if `begin` is 'stem', else the tap of the stage
        or block before `begin`.
      train: batch statistics and stochastic depth; needs
        mutable=['batch_stats'].
      begin: first stage that runs; in a `token_net.TokenNet` also a block, by
        the name of its tap, 'block05'.
      end: last stage that runs.
      train_from: earlier stages run as with train=False.

    Returns:
      The taps of the stages that ran: 'stem', 'stage1'..'stage4', 'feature',
      'pooled', 'logits', and of some families 'final' or 'feature_map'.

    Raises:
      ValueError: unknown stage, `end` before `begin`, or x is not a batch of
        float RGB images, or not what `begin` reads.
    """
    first, start = self.entry(begin, x)
    stages = _stages(first, end)
    one_of("train_from", train_from, STAGES)
    if begin == "stem":
      x = self._normalise(x)
    if self.dtype is not None:
      x = x.astype(self.dtype)
    taps: dict[str, Array] = {}
    # A family with an `entry` of its own takes what that says.
    run: Callable[..., tuple[Array, dict[str, Array]]] = self.run_stage
    for stage in stages:
      on = train and STAGES.index(stage) >= STAGES.index(train_from)
      x, new = run(stage, x, train=on, **start)
      taps.update(new)
    return taps

  def _normalise(self, x: Array) -> Array:
    if x.ndim != 4 or x.shape[-1] != 3:
      raise ValueError(f"images are (n, h, w, 3), got the shape {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
      raise ValueError(
        f"images are float RGB in [0, 1], got {x.dtype}. Divide uint8 by 255."
      )
    if self.channel_order == "bgr":
      x = x[..., ::-1]
    mean, std = (jnp.asarray(v, x.dtype) for v in (self.mean, self.std))
    return (x - mean) / std


class ConvNet(Backbone):
  """A convolutional network, pooled over its last map.

  Attributes:
    output_stride: 32, 16 or 8: total stride with the default stem. Later
      strides become dilation.
  """

  output_stride: int = 32

  def __post_init__(self) -> None:
    super().__post_init__()
    one_of("output_stride", self.output_stride, (32, 16, 8))


class Inits(TypedDict, total=False):
  """Initialisers of a classifier."""

  kernel_init: Initializer
  bias_init: Initializer


def classify(
  model: Backbone, x: Float[Array, "n h w c"], **inits: Unpack[Inits]
) -> tuple[Array, dict[str, Array]]:
  """The last stage: global pooling and the classifier, named `head`.

  Args:
    model: the module that is being called.
    x: the last map.
    **inits: `kernel_init` and `bias_init` of the classifier.

  Returns:
    logits, and the taps 'pooled' and 'logits'.
  """
  pooled = logits = layers.global_pool(x, model.global_pool)
  if model.num_classes:
    head = layers.Dense(
      model.num_classes, dtype=model.dtype, name="head", **inits
    )
    logits = head(pooled)
  return logits, {"pooled": pooled, "logits": logits}


def before_activation(x: Float[Array, "n h w c"]) -> dict[str, Array]:
  """The taps 'feature' and 'feature_map' of a network that ends with a ReLU.

  Args:
    x: its last map before that.
  """
  return {"feature": x.mean((1, 2)), "feature_map": x}


def _stages(begin: str, end: str) -> tuple[str, ...]:
  one_of("end", end, STAGES)
  first, last = STAGES.index(begin), STAGES.index(end)
  if last < first:
    raise ValueError(f"end={end!r} comes before begin={begin!r} in {STAGES}")
  return STAGES[first : last + 1]


def variable_shapes(
  model: nn.Module, image_size: int = 0, *, end: str = "head"
) -> Mapping[str, Any]:
  """Shapes of a network's variables up to a stage; nothing is computed.

  Args:
    model: a network.
    image_size: side of the images; 0 takes the model's `example_size`.
    end: last stage.
  """
  size = (image_size, image_size) if image_size else model.example_size
  return _variable_shapes(model, tuple(size), end)


# Tracing a network takes seconds, and every start asks often.
@functools.lru_cache(maxsize=64)
def _variable_shapes(
  model: nn.Module, size: tuple[int, int], end: str
) -> Mapping[str, Any]:
  image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  init = functools.partial(model.init, train=False, end=end)
  return jax.eval_shape(init, jax.random.key(0), image)


def one_of(name: str, value: object, allowed: Collection[object]) -> None:
  """Raises ValueError unless `value` is one of `allowed`."""
  if value not in allowed:
    raise ValueError(f"{name} is {value!r}; allowed: {list(allowed)}")


def _triple(name: str, value: tuple[float, ...]) -> None:
  good = isinstance(value, tuple) and len(value) == 3
  if not good or not all(isinstance(v, numbers.Real) for v in value):
    raise ValueError(f"{name} is {value!r}; it must be a tuple of 3 numbers")
  if not np.isfinite(value).all():
    raise ValueError(f"{name} is {value!r}; it must be finite")


def positive(name: str, value: tuple[int, ...], length: int) -> None:
  """Raises ValueError unless `value` is a tuple of `length` positive ints."""
  good = isinstance(value, tuple) and len(value) == length
  if not good or not all(isinstance(v, int) and v > 0 for v in value):
    raise ValueError(
      f"{name} is {value!r}; it must be a tuple of {length} positive integers"
    )
