"""EVA, and transformers whose attention is turned by places in the image.

EVA (arXiv:2211.07636), EVA-02 (2303.11331) and their CLIP towers, DINOv3
(2508.10104), Perception Encoder (2504.13181), RoPE-ViT (2403.13298), Sapiens2
(2604.21681), LingBot-Vision (2607.05247) and timm's own. Names and tokens are
timm's. timm's changes of the places in training (`rope_rescale_coords` and
others) are left out.

Example:
  model = create_model("vit_base_patch16_dinov3", img_size=224)
  tokens = model.apply(variables, images, end="stage4")["stage4"]
  # 1 class token, 4 registers, 14 x 14 patches
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import (
  attention_pool,
  patches,
  rotary,
  swiglu,
  transformer,
)
from kd_jax.models.eva import base, block, checkpoints, variants

VARIANTS = variants.TABLE
adapt = checkpoints.adapt

RULES = (
  *base.RULES,
  *attention_pool.RULES,
  ("rope.freqs", "params/rope/freqs", "copy"),
  *(
    (f"blocks.{{b}}.{theirs}", base.BLOCK + ours, layout)
    for theirs, ours, layout in (
      ("norm1", "norm1", "affine"),
      ("norm2", "norm2", "affine"),
      ("attn.qkv", "attn/qkv", "dense"),
      ("attn.q_bias", "attn/q_bias", "copy"),
      ("attn.v_bias", "attn/v_bias", "copy"),
      ("attn.q_proj", "attn/q_proj", "dense"),
      ("attn.k_proj", "attn/k_proj", "dense"),
      ("attn.v_proj", "attn/v_proj", "dense"),
      ("attn.q_norm", "attn/q_norm", "affine"),
      ("attn.k_norm", "attn/k_norm", "affine"),
      ("attn.norm", "attn/norm", "affine"),
      ("attn.proj", "attn/proj", "dense"),
      ("mlp.fc1", "mlp/fc1", "dense"),
      ("mlp.fc1_g", "mlp/fc1_g", "dense"),
      ("mlp.fc1_x", "mlp/fc1_x", "dense"),
      ("mlp.norm", "mlp/norm", "affine"),
      ("mlp.fc2", "mlp/fc2", "dense"),
      ("gamma_1", "ls1/gamma", "copy"),
      ("gamma_2", "ls2/gamma", "copy"),
    )
  ),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


class Model(base.Model):
  """EVA family; `VARIANTS` lists the named members.

  Attributes:
    mean: see `Backbone`.
    std: see `Backbone`.
    class_token: have a class token.
    num_reg_tokens: number of register tokens, after the class token.
    no_embed_class: only patches have a position embedding.
    dynamic_img_size: take images of any size that the patches tile; runs that
      begin behind the stem still read the tokens of `img_size`.
    dynamic_img_pad: zeros complete the patches at the lower and right edge of
      such images; then any size will do.
    attn_type: 'eva' has no bias of the key, 'rope' has one.
    num_kv_heads: heads of key and value, one number or one per block; None is
      `num_heads`. Needs attn_type='rope' and qkv_fused=False.
    qkv_fused: one layer for query, key and value.
    qk_norm: normalise query and key per head.
    swiglu_mlp: gate the MLPs.
    swiglu_align_to: the width of a gated MLP is a multiple of it, and the two
      halves of its first layer are two layers; 0 leaves it.
    scale_mlp: normalise inside the MLPs; needs swiglu_mlp.
    scale_attn_inner: normalise inside the attention.
    use_rot_pos_emb: turn query and key by their places.
    rope_type: how, one of `rotary.KINDS`.
    ref_feat_shape: with rope_type='cat' the grid to which these places are
      scaled, one number or (rows, columns); None leaves them.
    rope_grid_offset: added to the places; not for 'mixed'.
    rope_grid_indexing: 'ij' turns the first channels by rows, 'xy' by columns.
    rope_temperature: of the frequencies.
    rope_rotate_half: see `rotary.Turn.half`; not for 'mixed'.
    attn_only_layer_scale: `init_values` is for the attention only.
    norm_layer: kind of all normalisations, see `layers.NORMS`.
    norm_eps: of all normalisations.
    use_post_norm: normalise at the end of the branches; needs
      init_values=None.
    use_pre_transformer_norm: normalise before the first block; the patches
      have no bias.
    use_post_transformer_norm: normalise after the last block; None does so
      where nothing is normalised after pooling.
    attn_pool_num_heads: heads of global_pool='map'; None is `num_heads`.
    attn_pool_mlp_ratio: of its MLP; None is `mlp_ratio`.
  """

  POOLS: ClassVar[tuple[str, ...]] = ("avg", "max", "avgmax", "token", "map")
  NO_DECAY: ClassVar[tuple[str, ...]] = (
    "pos_embed",
    "cls_token",
    "reg_token",
    "freqs",
  )

  mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
  std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
  class_token: bool = True
  num_reg_tokens: int = 0
  no_embed_class: bool = False
  dynamic_img_size: bool = False
  dynamic_img_pad: bool = False
  attn_type: str = "eva"
  num_kv_heads: int | tuple[int, ...] | None = None
  qkv_fused: bool = True
  qk_norm: bool = False
  swiglu_mlp: bool = False
  swiglu_align_to: int = 0
  scale_mlp: bool = False
  scale_attn_inner: bool = False
  use_rot_pos_emb: bool = False
  rope_type: str = "cat"
  ref_feat_shape: int | tuple[int, int] | None = None
  rope_grid_offset: float = 0.0
  rope_grid_indexing: str = "ij"
  rope_temperature: float = 10000.0
  rope_rotate_half: bool = False
  attn_only_layer_scale: bool = False
  norm_layer: str = "layer"
  norm_eps: float = base.EPS
  use_post_norm: bool = False
  use_pre_transformer_norm: bool = False
  use_post_transformer_norm: bool | None = None
  attn_pool_num_heads: int | None = None
  attn_pool_mlp_ratio: float | None = None

  def __post_init__(self) -> None:
    super().__post_init__()
    _check(self)

  @property
  def any_image(self) -> bool:
    """See `base.Model.any_image`."""
    return self.dynamic_img_size

  @property
  def num_prefix_tokens(self) -> int:
    """Tokens before those of the patches."""
    return int(self.class_token) + self.num_reg_tokens

  def grid_for(self, size: tuple[int, int]) -> tuple[int, int]:
    """See `base.Model.grid_for`."""
    patch = patches.pair(self.patch_size)
    return patches.grid_of(size, patch, padded=self.dynamic_img_pad)

  def make_stem(self) -> patches.Stem:
    """See `base.Model.make_stem`."""
    kinds = (
      ("cls_token", int(self.class_token), 0.02),
      ("reg_token", self.num_reg_tokens, 0.02),
    )
    embedded = "patches" if self.no_embed_class else "all"
    return patches.Stem(
      self.embed_dim,
      patches.pair(self.patch_size),
      self.grid,
      tuple(kind for kind in kinds if kind[1]),
      embedded if self.use_abs_pos_emb else "none",
      self.norm_eps if self.use_pre_transformer_norm else None,
      self.dtype,
      norm=self.norm_layer,
      padded=self.dynamic_img_pad,
      name="stem",
    )

  def entry(self, begin: str, x: Array) -> tuple[str, dict[str, Any]]:
    """See `token_net.TokenNet.entry`; blocks are told how to turn."""
    stage, start = super().entry(begin, x)
    if not self.use_rot_pos_emb:
      return stage, start
    grid = self.grid
    if begin == "stem":
      grid = self.grid_for((x.shape[1], x.shape[2]))
    return stage, {**start, "turn": self._turn(grid)}

  def _turn(self, grid: tuple[int, int]) -> rotary.Turn:
    width = self.embed_dim // self.num_heads
    if self.rope_type == "mixed":
      rope = Frequencies(
        (2, self.depth, self.num_heads, width // 2),
        self.rope_temperature,
        name="rope",
      )
      return rotary.mixed(grid, rope(), indexing=self.rope_grid_indexing)
    fields: dict[str, Any] = {
      "temperature": self.rope_temperature,
      "offset": self.rope_grid_offset,
      "indexing": self.rope_grid_indexing,
      "half": self.rope_rotate_half,
    }
    if self.rope_type == "dinov3":
      return rotary.dinov3(grid, width, **fields)
    reference = self.ref_feat_shape
    if reference is not None:
      fields["reference"] = patches.pair(reference)
    return rotary.cat(grid, width, **fields)

  def blocks(
    self, numbers: Iterable[int]
  ) -> tuple[type[nn.Module], tuple[tuple[int, dict[str, Any]], ...]]:
    """See `token_net.TokenNet.blocks`."""
    return block.Block, tuple((i, self._block(i)) for i in numbers)

  def _block(self, number: int) -> dict[str, Any]:
    norms = {"norm": self.norm_layer, "eps": self.norm_eps}
    out = {"out_init": base.out_init(number), "dtype": self.dtype}
    kv_heads = self.num_kv_heads or self.num_heads
    second = None if self.attn_only_layer_scale else self.init_values
    return {
      "attn": {
        "num_heads": self.num_heads,
        "kv_heads": kv_heads if isinstance(kv_heads, int) else kv_heads[number],
        "qkv_bias": self.qkv_bias,
        "key_bias": self.attn_type == "rope",
        "fused": self.qkv_fused,
        "qk_norm": self.qk_norm,
        "inner_norm": self.scale_attn_inner,
        **norms,
        **out,
      },
      "mlp": self._mlp(out),
      "number": number,
      "post_norm": self.use_post_norm,
      "init_values": (self.init_values, second),
      "drop_path": self.drop_path_of(number),
      "dtype": self.dtype,
      **norms,
    }

  def _mlp(
    self, out: Mapping[str, Any]
  ) -> tuple[type[nn.Module], dict[str, Any]]:
    width = int(self.embed_dim * self.mlp_ratio)
    if not self.swiglu_mlp:
      return transformer.Mlp, {"width": width, **out}
    if self.scale_mlp or self.swiglu_align_to:
      width += -width % (self.swiglu_align_to or 1)
      norm = self.norm_layer if self.scale_mlp else None
      fields = {"width": width, "norm": norm, "eps": self.norm_eps}
      return swiglu.SwiGLU, {**fields, **out}
    silu = transformer.ACTIVATIONS["silu"]
    gated = {"width": 2 * width, "gated": True, "activation": silu}
    return transformer.Mlp, {**gated, **out}

  def last_norm(self) -> base.Norm | None:
    """See `base.Model.last_norm`."""
    after = self.norms_after()
    before = self.use_post_transformer_norm
    if not (after or before is None or before):
      return None
    inner = "fc_norm" if after else "norm"
    kind, eps = self.norm_layer, self.norm_eps
    return base.Norm(inner, self.dtype, kind, eps, name="neck")

  def pooled(self, x: Array, num_prefix_tokens: int) -> Array:
    """See `base.Model.pooled`; 'map' reads the prefix too."""
    if self.global_pool != "map":
      return super().pooled(x, num_prefix_tokens)
    ratio = self.attn_pool_mlp_ratio or self.mlp_ratio
    mlp = {"width": int(self.embed_dim * ratio)}
    heads = self.attn_pool_num_heads or self.num_heads
    return attention_pool.AttentionPool(
      heads, mlp, self.norm_eps, self.dtype, norm=self.norm_layer, name="pool"
    )(x)


class Frequencies(nn.Module):
  """Learnt frequencies, the parameter `freqs`.

  Attributes:
    shape: (2, blocks, heads, pairs of channels).
    temperature: of the first ones.
  """

  shape: tuple[int, int, int, int]
  temperature: float

  @nn.compact
  def __call__(self) -> Float[Array, "2 b h w"]:
    """The frequencies."""
    init = functools.partial(rotary.mixed_init, temperature=self.temperature)
    return self.param("freqs", init, self.shape, jnp.float32)


def _check(model: Model) -> None:
  """Raises ValueError for impossible fields."""
  one_of = backbone.one_of
  one_of("attn_type", model.attn_type, ("eva", "rope"))
  one_of("rope_type", model.rope_type, rotary.KINDS)
  one_of("rope_grid_indexing", model.rope_grid_indexing, ("ij", "xy"))
  one_of("norm_layer", model.norm_layer, tuple(layers.NORMS))
  post = model.use_post_transformer_norm
  one_of("use_post_transformer_norm", post, (None, True, False))
  _normalisations(model)
  _tokens(model)
  _heads(model)


def _normalisations(model: Model) -> None:
  if model.scale_mlp and not model.swiglu_mlp:
    raise ValueError("scale_mlp=True needs swiglu_mlp=True")
  if model.use_post_norm and model.init_values is not None:
    raise ValueError("use_post_norm=True needs init_values=None")
  if model.use_post_transformer_norm and model.norms_after():
    raise ValueError(
      "use_post_transformer_norm=True needs use_fc_norm=False; it is "
      f"{model.use_fc_norm} with global_pool={model.global_pool!r}"
    )


def _tokens(model: Model) -> None:
  if model.global_pool == "token" and not model.class_token:
    raise ValueError(
      "global_pool='token' needs class_token=True; without it use 'avg', "
      "'max', 'avgmax' or 'map'"
    )
  for name in ("num_reg_tokens", "swiglu_align_to"):
    if getattr(model, name) < 0:
      raise ValueError(f"{name} is {getattr(model, name)}; it must be >= 0")
  if model.ref_feat_shape is not None:
    pair = patches.pair(model.ref_feat_shape)
    backbone.positive("ref_feat_shape", pair, 2)


def _heads(model: Model) -> None:
  width = model.embed_dim // model.num_heads
  if model.use_rot_pos_emb and width % 4:
    raise ValueError(
      f"heads have {width} channels; use_rot_pos_emb=True needs a multiple of 4"
    )
  given = model.num_kv_heads
  if given is None:
    return
  heads = (given,) * model.depth if isinstance(given, int) else given
  whole = [isinstance(k, int) and k > 0 for k in heads]
  if len(heads) != model.depth or not all(whole):
    raise ValueError(
      f"num_kv_heads is {given}; it is a positive number, or one for each of "
      f"the {model.depth} blocks"
    )
  if any(model.num_heads % k for k in heads):
    raise ValueError(
      f"num_kv_heads is {given}; all must divide num_heads={model.num_heads}"
    )
  if model.attn_type != "rope" or model.qkv_fused:
    raise ValueError("num_kv_heads needs attn_type='rope' and qkv_fused=False")
