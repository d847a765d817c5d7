"""Vision transformers: ViT, DeiT, CLIP, SigLIP, DINOv2, AIMv2, BEiT-3, RADIO.

ViT (arXiv:2010.11929), DeiT (2012.12877), DeiT III (2204.07118), the image
towers of CLIP (2103.00020) and SigLIP (2303.15343), DINOv2 (2304.07193) and its
registers (2309.16588), FlexiViT (2212.08013), BEiT-3 (2208.10442), AIMv2
(2411.14402), C-RADIO (2312.06709), and timm's own.

Names, hyper-parameters and tokens are timm's. Images of any size that the
patches tile are accepted: the position embedding is resampled, as with timm's
`dynamic_img_size`. Initialisation: linear layers and position embedding
N(0, 0.02^2), class token and registers N(0, 1e-12), patches as PyTorch's
convolution; half of the gated MLP's first layer starts near a constant gate of
1, and it is timm's half.

The patches of the two SigLIP models of 384 pixels and patches of 14 do not tile
the image: the last pixels are left out (`ragged`).

Example:
  model = create_model("vit_small_patch16_224", img_size=64, num_classes=10)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  tokens = model.apply(variables, images, end="stage4")["stage4"]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from flax import linen as nn
from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import checks, layers
from kd_jax.models.blocks.tokens import (
  attention_pool,
  patches,
  swiglu,
  token_net,
  transformer,
)
from kd_jax.models.vit import block, checkpoints, heads, kin, variants

VARIANTS = {**variants.TABLE, **kin.TABLE}
adapt = checkpoints.adapt

RULES = (
  *patches.STEM_RULES,
  *transformer.BLOCK_RULES,
  *block.RULES,
  ("norm", "params/neck/norm", "affine"),
  ("fc_norm", "params/neck/fc_norm", "affine"),
  *attention_pool.RULES,
  ("head", "params/head", "dense"),
  ("head_dist", "params/head/dist", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""

_TINY = 1e-6
_MLPS = ("mlp", "swiglu", "swiglu_packed")
_BLOCKS: dict[str, type[nn.Module]] = {
  "block": transformer.Block,
  "respost": block.ResPost,
  "parallel_scaling": block.ParallelScaling,
  "diff_parallel_scaling": block.ParallelScaling,
  "parallel_things": block.ParallelThings,
}


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
    scale_attn_norm: normalise inside the attention.
    scale_mlp_norm: normalise inside the MLP.
    proj_bias: the last layer of the attention, and all of the MLP, have a
      bias.
    pool_include_prefix: global_pool='map' reads the prefix too.
    norm_layer: kind of all normalisations, see `layers.NORMS`.
    norm_eps: of all normalisations.
    embed_norm: normalise the patches, before their position embedding.
    act_layer: one of `transformer.ACTIVATIONS`.
    mlp_layer: 'mlp', 'swiglu' (gated) or 'swiglu_packed' (gated, both halves
      in one layer).
    attn_layer: 'attn', or 'diff': the difference of two attentions.
    block_fn: 'block', or one of those of `block`.
    ragged: take images that the patches do not tile; see `patches.grid_of`.
    dynamic_img_pad: take images of any size: zeros complete the patches at the
      lower and right edge.
  """

  ANY_SIZE: ClassVar[bool] = True
  PADS: ClassVar[bool] = True
  """Whether `dynamic_img_pad` is there."""
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
  scale_attn_norm: bool = False
  scale_mlp_norm: bool = False
  proj_bias: bool = True
  pool_include_prefix: bool = False
  norm_layer: str = "layer"
  norm_eps: float = 1e-6
  embed_norm: bool = False
  act_layer: str = "gelu"
  mlp_layer: str = "mlp"
  attn_layer: str = "attn"
  block_fn: str = "block"
  ragged: bool = False
  dynamic_img_pad: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    checks.check_fields(self)
    names = tuple(transformer.ACTIVATIONS)
    backbone.one_of("act_layer", self.act_layer, names)
    backbone.one_of("mlp_layer", self.mlp_layer, _MLPS)
    backbone.one_of("norm_layer", self.norm_layer, tuple(layers.NORMS))
    backbone.one_of("attn_layer", self.attn_layer, ("attn", "diff"))
    backbone.one_of("block_fn", self.block_fn, _BLOCKS)
    backbone.one_of("fc_norm", self.fc_norm, (None, True, False))
    if not isinstance(self.init_values, int | float | None):
      raise ValueError(
        f"init_values is {self.init_values!r}; it must be a number or None"
      )
    self._check_mlp()
    self._check_block()
    self._check_tokens()

  def _check_mlp(self) -> None:
    width = int(self.embed_dim * self.mlp_ratio)
    halves = 2 if self.mlp_layer == "swiglu_packed" else 1
    if width < 1 or width % halves:
      raise ValueError(
        f"mlp_ratio is {self.mlp_ratio}; with embed_dim={self.embed_dim} that "
        f"is an MLP of {width} channels, not a positive multiple of {halves}"
      )

  def _check_block(self) -> None:
    scaling = self.block_fn.endswith("parallel_scaling")
    plain = (self.mlp_layer, self.attn_layer) == ("mlp", "attn")
    if scaling and (not plain or self.scale_attn_norm or self.scale_mlp_norm):
      raise ValueError(
        f"block_fn={self.block_fn!r} needs mlp_layer='mlp', "
        "attn_layer='attn', scale_attn_norm=False and scale_mlp_norm=False"
      )
    width = self.embed_dim // self.num_heads
    if width % 2 and "diff" in (self.attn_layer, self.block_fn[:4]):
      raise ValueError(
        f"heads have {width} channels; the difference of two attentions needs "
        "an even number"
      )

  def _check_tokens(self) -> None:
    if self.dynamic_img_pad and not self.PADS:
      raise ValueError(
        "dynamic_img_pad=True is for patches; here convolutions read the "
        "image. Leave it at False and resize the images"
      )
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

  @property
  def grid(self) -> tuple[int, int]:
    """See `token_net.TokenNet.grid`."""
    size = patches.pair(self.patch_size)
    return patches.grid_of(self.example_size, size, ragged=self.ragged)

  def grid_for(self, size: tuple[int, int]) -> tuple[int, int]:
    """See `token_net.TokenNet.grid_for`."""
    patch = patches.pair(self.patch_size)
    rest = {"ragged": self.ragged, "padded": self.dynamic_img_pad}
    return patches.grid_of(size, patch, **rest)

  def blocks(
    self, numbers: Iterable[int]
  ) -> tuple[type[nn.Module], tuple[tuple[int, dict[str, Any]], ...]]:
    """See `token_net.TokenNet.blocks`."""
    kind = _BLOCKS[self.block_fn]
    return kind, tuple((i, self._block(i)) for i in numbers)

  def _prefix(self) -> tuple[tuple[str, int, float], ...]:
    kinds = (
      ("cls_token", int(self.class_token), _TINY),
      ("dist_token", int(self.distilled), 0.02),
      ("reg_token", self.reg_tokens, _TINY),
    )
    return tuple(kind for kind in kinds if kind[1])

  def embed(self, x: Array) -> Array:
    """See `token_net.TokenNet.embed`."""
    norm = (self.norm_layer, self.norm_eps)
    stem = patches.Stem(
      self.embed_dim,
      patches.pair(self.patch_size),
      self.grid,
      self._prefix(),
      "patches" if self.no_embed_class else "all",
      self.norm_eps if self.pre_norm else None,
      self.dtype,
      norm=self.norm_layer,
      embed_norm=norm if self.embed_norm else None,
      ragged=self.ragged,
      padded=self.dynamic_img_pad,
      name="stem",
    )
    return stem(x)

  def _block(self, index: int) -> dict[str, Any]:
    shared = {
      "norm": self.norm_layer,
      "eps": self.norm_eps,
      "init_values": self.init_values,
      "drop_path": self.drop_path_rate * index / (self.depth - 1),
      "dtype": self.dtype,
    }
    if self.block_fn.endswith("parallel_scaling"):
      return {**self._scaling(index), **shared}
    kinds = (
      block.DiffAttention
      if self.attn_layer == "diff"
      else transformer.Attention,
      swiglu.SwiGLU if self.mlp_layer == "swiglu" else transformer.Mlp,
    )
    fields = {
      "attn": self._attention(index),
      "mlp": self._mlp(self.mlp_layer),
      "kinds": kinds,
    }
    if self.block_fn == "parallel_things":
      return {**fields, "branch": shared}
    return {**fields, **shared}

  def _attention(self, index: int) -> dict[str, Any]:
    fields = {
      "num_heads": self.num_heads,
      "qkv_bias": self.qkv_bias,
      "qk_norm": self.qk_norm,
      "inner_norm": self.scale_attn_norm,
      "proj_bias": self.proj_bias,
      "norm": self.norm_layer,
      "eps": self.norm_eps,
    }
    return {**fields, "number": index} if self.attn_layer == "diff" else fields

  def _scaling(self, index: int) -> dict[str, Any]:
    return {
      "num_heads": self.num_heads,
      "width": int(self.embed_dim * self.mlp_ratio),
      "activation": transformer.ACTIVATIONS[self.act_layer],
      "qkv_bias": self.qkv_bias,
      "qk_norm": self.qk_norm,
      "proj_bias": self.proj_bias,
      "differential": self.block_fn == "diff_parallel_scaling",
      "number": index,
    }

  def _mlp(self, kind: str) -> dict[str, Any]:
    fields = {
      "width": int(self.embed_dim * self.mlp_ratio),
      "activation": transformer.ACTIVATIONS[self.act_layer],
      "use_bias": self.proj_bias,
      "norm": self.norm_layer if self.scale_mlp_norm else None,
      "eps": self.norm_eps,
    }
    if kind != "swiglu_packed":
      return fields
    inits = {"kernel_init": block.gate_kernel, "bias_init": block.gate_bias}
    return {**fields, "gated": True, **inits}

  def classify(
    self, x: Array, num_prefix_tokens: int
  ) -> tuple[Array, dict[str, Array]]:
    """See `token_net.TokenNet.classify`."""
    after = self.fc_norm
    if after is None:
      after = self.global_pool in ("avg", "max", "avgmax")
    inner = "fc_norm" if after else "norm"
    kind = self.norm_layer
    norm = heads.Norm(inner, self.norm_eps, self.dtype, kind, name="neck")
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
      logits = layers.Dense(
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
    mlp = {
      "width": int(self.embed_dim * self.mlp_ratio),
      "activation": transformer.ACTIVATIONS[self.act_layer],
    }
    pool = attention_pool.AttentionPool(
      self.num_heads,
      mlp,
      self.norm_eps,
      self.dtype,
      self.norm_layer,
      name="pool",
    )
    return pool(x if self.pool_include_prefix else x[:, num_prefix_tokens:])

  def _distilled(self, x: Array) -> tuple[Array, dict[str, Array]]:
    pooled = logits = (x[:, 0] + x[:, 1]) / 2
    both = {}
    if self.num_classes:
      head = heads.DistilledHead(self.num_classes, self.dtype, name="head")
      first, second = head(x[:, 0], x[:, 1])
      both = {"logits_head": first, "logits_dist": second}
      logits = (first + second) / 2
    return logits, {
      "feature": pooled,
      "pooled": pooled,
      **both,
      "logits": logits,
    }
