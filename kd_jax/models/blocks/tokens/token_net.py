"""Networks of equal blocks of tokens, which a run may enter at any block."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks.tokens import patches, transformer
from kd_jax.types import STAGES


class TokenNet(backbone.Backbone):
  """A grid of patches as tokens, after prefix tokens (class, registers).

  A family subclasses it and defines `depth`, `num_prefix_tokens`, `embed`,
  `blocks` and `classify`; `transformer` says how the blocks are split over the
  stages.

  `begin` may be a block: 'block05' runs block 5 and all that follow, on the tap
  'block04'. If a run begins behind the stem, exactly as many tokens as an image
  of `img_size` has patches are tokens without a prefix, and the run has none.

  Attributes:
    img_size: size of the images, one number or (height, width).
    patch_size: one number or (height, width), in pixels.
    embed_dim: width of a token.
  """

  PARTITION: ClassVar[tuple[tuple[str, int], ...]] = transformer.PARTITION
  ANY_SIZE: ClassVar[bool] = False
  """Whether blocks take the tokens of images of any size."""

  img_size: int | tuple[int, int] = 224
  patch_size: int | tuple[int, int] = 16
  embed_dim: int = 768

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.embed_dim

  @property
  def example_size(self) -> tuple[int, int]:
    """`img_size` as a pair."""
    return patches.pair(self.img_size)

  @property
  def grid(self) -> tuple[int, int]:
    """Patches of an image of `img_size`, down and across."""
    return patches.grid_of(self.example_size, patches.pair(self.patch_size))

  def grid_for(self, size: tuple[int, int]) -> tuple[int, int]:
    """Patches of an image of another size, down and across.

    Raises:
      ValueError: the patches do not tile it.
    """
    return patches.grid_of(size, patches.pair(self.patch_size))

  def embed(self, x: Float[Array, "n h w c"]) -> Float[Array, "n t d"]:
    """The stem: tokens of images, with their prefix."""
    raise NotImplementedError

  def blocks(
    self, numbers: Iterable[int]
  ) -> tuple[type[nn.Module], tuple[tuple[int, dict[str, Any]], ...]]:
    """Class, and (number, fields), of some blocks."""
    raise NotImplementedError

  def classify(
    self, x: Float[Array, "n t d"], num_prefix_tokens: int
  ) -> tuple[Array, dict[str, Array]]:
    """The head: logits and taps of tokens with so many prefixes."""
    raise NotImplementedError

  def entry(self, begin: str, x: Array) -> tuple[str, dict[str, Any]]:
    """See `Backbone.entry`; a run is told its first block and its prefix.

    What else a family says here goes to its blocks.
    """
    places = {stage: (stage, 0) for stage in STAGES}
    for stage in STAGES[1:-1]:
      for number in transformer.blocks_of(stage, self.depth):
        places[transformer.tap_of(number)] = stage, number
    backbone.one_of("begin", begin, tuple(places))
    stage, first = places[begin]
    prefix = self.num_prefix_tokens
    if begin != "stem":
      prefix = self._prefix_of(begin, x)
    return stage, {"first": first, "prefix": prefix}

  def run_stage(
    self,
    stage: str,
    x: Array,
    *,
    train: bool,
    first: int = 0,
    prefix: int | None = None,
    **call: Any,
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' and 'final' come with 'head'.

    Args:
      stage: which.
      x: what it reads.
      train: stochastic depth.
      first: earlier blocks do not run.
      prefix: number of prefix tokens; None if it is not known.
      **call: passed to each block.
    """
    if stage == "stem":
      x = self.embed(x)
      return x, {"stem": x}
    if stage == "head":
      return self.classify(x, self._prefix_of_head(x, prefix))
    numbers = transformer.blocks_of(stage, self.depth)
    blocks = self.blocks(i for i in numbers if i >= first)
    x, taps = transformer.Stage(*blocks, name=stage)(x, train=train, **call)
    return x, {**taps, stage: x}

  def _prefix_of(self, begin: str, x: Array) -> int | None:
    if x.ndim != 3 or x.shape[2] != self.embed_dim:
      raise ValueError(
        f"{begin} reads tokens (n, t, {self.embed_dim}), got the shape "
        f"{x.shape}"
      )
    prefix = x.shape[1] - math.prod(self.grid)
    if prefix in (0, self.num_prefix_tokens):
      return prefix
    if self.ANY_SIZE:
      return None if self.num_prefix_tokens else 0
    raise self._wrong_number(begin, x)

  def _prefix_of_head(self, x: Array, prefix: int | None) -> int:
    if prefix is None:
      raise self._wrong_number("head", x)
    if self.global_pool == "token" and not prefix:
      raise ValueError(
        "the head reads the class token (global_pool='token'), and the run "
        "began with tokens without a prefix. Stop at end='stage4', or begin "
        f"with all {self._tokens()} tokens."
      )
    return prefix

  def _wrong_number(self, stage: str, x: Array) -> ValueError:
    without = ""
    if self.num_prefix_tokens:
      without = f" (or {math.prod(self.grid)} without a prefix)"
    return ValueError(
      f"{stage} reads {self._tokens()} tokens of images of {self.example_size}"
      f"{without}, got {x.shape[1]}. Set img_size to the size of the images."
    )

  def _tokens(self) -> int:
    return self.num_prefix_tokens + math.prod(self.grid)
