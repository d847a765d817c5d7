"""Vision transformers: ViT, DeiT, CLIP, SigLIP and DINOv2.

ViT (arXiv:2010.11929), DeiT (2012.12877), DeiT III (2204.07118), the image
towers of CLIP (2103.00020) and SigLIP (2303.15343), DINOv2 (2304.07193) and its
registers (2309.16588).

Names, hyper-parameters and tokens are timm's. Images of any size that the
patches tile are accepted: the position embedding is resampled, as with timm's
`dynamic_img_size`. Initialisation: linear layers and position embedding
N(0, 0.02^2), class token and registers N(0, 1e-12), patches as PyTorch's
convolution; half of the gated MLP's first layer starts near a constant gate of
1, and it is timm's half.

The two SigLIP models of 384 pixels and patches of 14 are left out, because the
patches do not tile the image; those of 378 have the same weights.

Example:
  model = create_model("vit_small_patch16_224", img_size=64, num_classes=10)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  tokens = model.apply(variables, images, end="stage4")["stage4"]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import dtypes
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import (
  attention_pool,
  layers,
  patches,
  token_net,
  transformer,
)
from kd_jax.models.vit import checkpoints, variants

VARIANTS = variants.TABLE
adapt = checkpoints.adapt

RULES = (
  *patches.STEM_RULES,
  *transformer.BLOCK_RULES,
  ("norm", "params/neck/norm", "affine"),
  ("fc_norm", "params/neck/fc_norm", "affine"),
  *attention_pool.RULES,
  ("head", "params/head", "dense"),
  ("head_dist", "params/head/dist", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""

_TINY = 1e-6


class Norm(nn.Module):
  """The last layer normalisation.

  Attributes:
    inner: 'norm' of the tokens, or 'fc_norm' of what they are pooled to.
    eps: added to the variance.
    dtype: compute dtype.
  """

  inner: str
  eps: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Normalises."""
    return layers.layer_norm(self.eps, self.dtype, self.inner)(x)


class DistilledHead(nn.Module):
  """The classifiers of the class token and of the distillation token.

  Attributes:
    features: number of classes.
    dtype: compute dtype.
  """

  features: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n d"], distilled: Float[Array, "n d"]
  ) -> tuple[Float[Array, "n k"], Float[Array, "n k"]]:
    """Logits of the two; the second classifier is `dist`."""
    init = transformer.INIT
    shape = (x.shape[-1], self.features)
    kernel = self.param("kernel", init, shape, jnp.float32)
    bias = self.param("bias", initializers.zeros, shape[1:], jnp.float32)
    x, kernel, bias = dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    dist = nn.Dense(
      self.features, dtype=self.dtype, kernel_init=init, name="dist"
    )
    return x @ kernel + bias, dist(distilled)


class Model(token_net.TokenNet):
  """Vision transformers; `VARIANTS` lists the named members.

  Taps of the stages are tokens, the prefix first; `blockNN` are those of every
  block, and 'final' comes with the head: the tokens after the last
  normalisation. 'feature' equals 'pooled'. With `distilled` there are
  'logits_head' and 'logits_dist', 'logits' is their mean and 'pooled' the mean
  of the two tokens, in training too.

  The position embedding is for images of `img_size`. Blocks may begin with the
  tokens of any size, a head behind them only with those of `img_size`, unless
  the network has no prefix: it has to know which tokens are prefixes.

  Attributes:
    depth: number of blocks, split over the stages as `transformer` says.
    num_heads: number of attention heads.
    mlp_ratio: width of the MLP over that of a token.
    class_token: have a class token.
    distilled: have a distillation token and its classifier.
    reg_tokens: number of register tokens.
    no_embed_class: only patches have a position embedding.
    pre_norm: normalise before the first block; the patches have no bias.
    final_norm: normalise after the last block.
    fc_norm: normalise after pooling instead of before; None does so for 'avg',
      'max' and 'avgmax'.
    init_values: first value of the scale of each branch; None has no scales.
    qkv_bias: add a bias to query, key and value.
    qk_norm: normalise query and key.
    norm_eps: of all layer normalisations.
    act_layer: one of `transformer.ACTIVATIONS`.
    mlp_layer: 'mlp' or 'swiglu_packed' (gated, both halves in one layer).
  """

  ANY_SIZE: ClassVar[bool] = True
  POOLS: ClassVar[tuple[str, ...]] = ("token", "avg", "max", "avgmax", "map")
  NO_DECAY: ClassVar[tuple[str, ...]] = (
    "pos_embed",
    "cls_token",
    "reg_token",
    "dist_token",
  )

  global_pool: str = "token"
  mean: tuple[float, ...] = (0.5, 0.5, 0.5)
  std: tuple[float, ...] = (0.5, 0.5, 0.5)
  interpolation: str = "bicubic"
  crop_pct: float = 0.9
  depth: int = 12
  num_heads: int = 12
  mlp_ratio: float = 4.0
  class_token: bool = True
  distilled: bool = False
  reg_tokens: int = 0
  no_embed_class: bool = False
  pre_norm: bool = False
  final_norm: bool = True
  fc_norm: bool | None = None
  init_values: float | None = None
  qkv_bias: bool = True
  qk_norm: bool = False
  norm_eps: float = 1e-6
  act_layer: str = "gelu"
  mlp_layer: str = "mlp"

  def __post_init__(self) -> None:
    super().__post_init__()
    transformer.check_fields(self)
    names = tuple(transformer.ACTIVATIONS)
    backbone.one_of("act_layer", self.act_layer, names)
    backbone.one_of("mlp_layer", self.mlp_layer, ("mlp", "swiglu_packed"))
    backbone.one_of("fc_norm", self.fc_norm, (None, True, False))
    if not isinstance(self.init_values, int | float | None):
      raise ValueError(
        f"init_values is {self.init_values!r}; it must be a number or None"
      )
    self._check_mlp()
    self._check_tokens()

  def _check_mlp(self) -> None:
    width = int(self.embed_dim * self.mlp_ratio)
    halves = 2 if self.mlp_layer == "swiglu_packed" else 1
    if width < 1 or width % halves:
      raise ValueError(
        f"mlp_ratio is {self.mlp_ratio}; with embed_dim={self.embed_dim} that "
        f"is an MLP of {width} channels, not a positive multiple of {halves}"
      )

  def _check_tokens(self) -> None:
    if self.reg_tokens < 0:
      raise ValueError(f"reg_tokens is {self.reg_tokens}; it must be >= 0")
    if self.global_pool == "token" and not self.class_token:
      raise ValueError(
        "global_pool='token' needs class_token=True; without it use 'avg', "
        "'max', 'avgmax' or 'map'"
      )
    plain = self.global_pool == "token" and not self.fc_norm
    if self.distilled and (not plain or self.reg_tokens):
      raise ValueError(
        "distilled=True needs global_pool='token', reg_tokens=0 and no "
        "fc_norm: its classifiers read the class and distillation tokens"
      )

  @property
  def num_prefix_tokens(self) -> int:
    """Tokens before those of the patches."""
    return sum(number for _, number, _ in self._prefix())

  def blocks(
    self, numbers: Iterable[int]
  ) -> tuple[type[nn.Module], tuple[tuple[int, dict[str, Any]], ...]]:
    """See `token_net.TokenNet.blocks`."""
    return transformer.Block, tuple((i, self._block(i)) for i in numbers)

  def _prefix(self) -> tuple[tuple[str, int, float], ...]:
    kinds = (
      ("cls_token", int(self.class_token), _TINY),
      ("dist_token", int(self.distilled), 0.02),
      ("reg_token", self.reg_tokens, _TINY),
    )
    return tuple(kind for kind in kinds if kind[1])

  def embed(self, x: Array) -> Array:
    """See `token_net.TokenNet.embed`."""
    stem = patches.Stem(
      self.embed_dim,
      patches.pair(self.patch_size),
      self.grid,
      self._prefix(),
      "patches" if self.no_embed_class else "all",
      self.norm_eps if self.pre_norm else None,
      self.dtype,
      name="stem",
    )
    return stem(x)

  def _block(self, index: int) -> dict[str, Any]:
    return {
      "attn": {
        "num_heads": self.num_heads,
        "qkv_bias": self.qkv_bias,
        "qk_norm": self.qk_norm,
        "eps": self.norm_eps,
      },
      "mlp": self._mlp(gated=self.mlp_layer == "swiglu_packed"),
      "eps": self.norm_eps,
      "init_values": self.init_values,
      "drop_path": self.drop_path_rate * index / (self.depth - 1),
      "dtype": self.dtype,
    }

  def _mlp(self, *, gated: bool) -> dict[str, Any]:
    fields = {
      "width": int(self.embed_dim * self.mlp_ratio),
      "activation": transformer.ACTIVATIONS[self.act_layer],
    }
    if not gated:
      return fields
    inits = {"kernel_init": _gate_kernel, "bias_init": _gate_bias}
    return {**fields, "gated": True, **inits}

  def classify(
    self, x: Array, num_prefix_tokens: int
  ) -> tuple[Array, dict[str, Array]]:
    """See `token_net.TokenNet.classify`."""
    after = self.fc_norm
    if after is None:
      after = self.global_pool in ("avg", "max", "avgmax")
    inner = "fc_norm" if after else "norm"
    norm = Norm(inner, self.norm_eps, self.dtype, name="neck")
    if self.final_norm and not after:
      x = norm(x)
    final = x
    if self.distilled:
      logits, taps = self._distilled(x)
      return logits, {"final": final, **taps}
    x = self._pool(x, num_prefix_tokens)
    if self.final_norm and after:
      x = norm(x)
    logits = x
    if self.num_classes:
      logits = nn.Dense(
        self.num_classes,
        dtype=self.dtype,
        kernel_init=transformer.INIT,
        name="head",
      )(x)
    taps = {"final": final, "feature": x, "pooled": x, "logits": logits}
    return logits, taps

  def _pool(self, x: Array, num_prefix_tokens: int) -> Array:
    if self.global_pool != "map":
      return patches.pool_tokens(x, self.global_pool, num_prefix_tokens)
    mlp = self._mlp(gated=False)
    pool = attention_pool.AttentionPool(
      self.num_heads, mlp, self.norm_eps, self.dtype, name="pool"
    )
    return pool(x[:, num_prefix_tokens:])

  def _distilled(self, x: Array) -> tuple[Array, dict[str, Array]]:
    pooled = logits = (x[:, 0] + x[:, 1]) / 2
    heads = {}
    if self.num_classes:
      head = DistilledHead(self.num_classes, self.dtype, name="head")
      first, second = head(x[:, 0], x[:, 1])
      heads = {"logits_head": first, "logits_dist": second}
      logits = (first + second) / 2
    return logits, {
      "feature": pooled,
      "pooled": pooled,
      **heads,
      "logits": logits,
    }


def _gate_kernel(
  key: Array, shape: tuple[int, int], dtype: layers.Dtype = jnp.float32
) -> Array:
  kernel = 0.02 * jax.random.normal(key, shape, dtype)
  return kernel.at[:, shape[1] // 2 :].multiply(_TINY / 0.02)


def _gate_bias(
  key: Array, shape: tuple[int], dtype: layers.Dtype = jnp.float32
) -> Array:
  del key
  return jnp.zeros(shape, dtype).at[shape[0] // 2 :].set(1.0)
