"""The ResNets of CLIP (arXiv:2103.00020) with attention pooling.

The query is the mean pixel; keys and values are it and all pixels. Its output
is 'pooled', and the classifier is the projection into the joint space.
Initialisation of the pooling: queries, keys, values and position embedding
N(0, 1 / width); classifier N(0, 0.01^2); biases 0. See `clip_base`
for the rest, and `clip_resnet_gap` for average pooling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer
from kd_jax.models.resnet import clip_base

_HEAD_DIM = 64
_CLASSES = {
  "resnet50": 1024,
  "resnet101": 512,
  "resnet50x4": 640,
  "resnet50x16": 768,
  "resnet50x64": 1024,
}

VARIANTS = {
  f"{name}_clip": {
    **fields,
    "img_size": fields["input_size"][1],
    "num_classes": _CLASSES[name],
  }
  for name, fields in clip_base.SIZES.items()
}

RULES = (
  *clip_base.RULES,
  ("head.pos_embed", "params/pool/pos_embed", "copy"),
  *((f"head.{name}", f"params/pool/{name}", "dense") for name in "qkv"),
  ("head.proj", "params/head", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


class AttentionPool(nn.Module):
  """Multi-head attention from the mean pixel to all pixels.

  Plain einsums; the softmax is in float32 or wider.

  Attributes:
    grid: height and width of the map that the position embedding is made
      for; other maps get a bicubic, antialiased resize of it.
    dtype: compute dtype.
  """

  grid: tuple[int, int]
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w d"]) -> Float[Array, "n d"]:
    """The attended mean."""
    n, h, w, d = x.shape
    init = initializers.normal(d**-0.5)
    size = (1 + math.prod(self.grid), d)
    position = self.param("pos_embed", init, size, jnp.float32)
    position = resized(position, self.grid, (h, w)).astype(x.dtype)
    tokens = x.reshape(n, h * w, d)
    tokens = jnp.concatenate([tokens.mean(1, keepdims=True), tokens], 1)
    tokens = tokens + position
    q = self._heads(tokens[:, 0], "q") * _HEAD_DIM**-0.5
    k, v = self._heads(tokens, "k"), self._heads(tokens, "v")
    wide = jnp.promote_types(x.dtype, jnp.float32)
    logits = jnp.einsum("nhd,nthd->nht", q, k, preferred_element_type=wide)
    weights = nn.softmax(logits).astype(x.dtype)
    self.sow("intermediates", transformer.ATTENTION, weights[:, :, None])
    return jnp.einsum("nht,nthd->nhd", weights, v).reshape(n, d)

  def _heads(self, x: Array, name: str) -> Array:
    width = x.shape[-1]
    init = initializers.normal(width**-0.5)
    dense = layers.Dense(width, dtype=self.dtype, kernel_init=init, name=name)
    return dense(x).reshape(*x.shape[:-1], -1, _HEAD_DIM)


def resized(
  position: Float[Array, "t d"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Array, "s d"]:
  """Position embedding of another grid; the first row, the mean's, stays.

  Args:
    position: one row for the mean, then one per pixel.
    old: height and width that it is made for.
    new: height and width that it is for.
  """
  if old == new:
    return position
  depth = position.shape[-1]
  pixels = position[1:].reshape(*old, depth)
  pixels = jax.image.resize(pixels, (*new, depth), "bicubic", antialias=True)
  return jnp.concatenate([position[:1], pixels.reshape(-1, depth)])


class Model(clip_base.Trunk):
  """CLIP's ResNets; `VARIANTS` lists the named members.

  Attributes:
    global_pool: 'token', the attention.
    img_size: side of the images, in pixels, that the position embedding is
      made for.
  """

  POOLS: ClassVar[tuple[str, ...]] = ("token",)

  global_pool: str = "token"
  img_size: int = 224

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.img_size < 1 or self.img_size % 32:
      raise ValueError(
        f"img_size is {self.img_size}; it must be a multiple of 32"
      )
    if self.width % _HEAD_DIM:
      raise ValueError(
        f"width_factor={self.width_factor} makes a last map of {self.width} "
        f"channels; they must be a multiple of {_HEAD_DIM}"
      )

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.width

  @property
  def example_size(self) -> tuple[int, int]:
    """See `Backbone`."""
    return (self.img_size, self.img_size)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'stage4'."""
    if stage != "head":
      return super().run_stage(stage, x, train=train)
    side = self.img_size // self.output_stride
    pooled = logits = AttentionPool((side, side), self.dtype, name="pool")(x)
    if self.num_classes:
      init = initializers.normal(0.01)
      head = layers.Dense(
        self.num_classes, dtype=self.dtype, kernel_init=init, name="head"
      )
      logits = head(pooled)
    return logits, {"pooled": pooled, "logits": logits}


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """OpenAI's names, and the position embedding of another square image.

  Args:
    state_dict: tensors of a file.
    shapes: {timm name: shape} of the model.
  """
  found = clip_base.from_openai(state_dict)
  name = "head.pos_embed"
  if name in found and name in shapes:
    rows = len(found[name]), shapes[name][0]
    old, new = (math.isqrt(n - 1) for n in rows)
    if old**2 == rows[0] - 1:
      table = resized(jnp.asarray(found[name]), (old, old), (new, new))
      found[name] = np.asarray(table)
  return found
