"""EVA (arXiv:2211.07636), EVA-02 (2303.11331) and their CLIP towers.

Names and tokens are timm's. EVA-02 rotates query and key of the patches by
their places in the image, gates its MLPs, and normalises inside them where
they are large. Keys have no bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, patches, rotary, transformer
from kd_jax.models.eva import base, variants

VARIANTS = variants.TABLE
adapt = variants.adapt

RULES = (
  *base.RULES,
  *(
    (f"blocks.{{b}}.{theirs}", base.BLOCK + ours, layout)
    for theirs, ours, layout in (
      ("norm1", "norm1", "affine"),
      ("norm2", "norm2", "affine"),
      ("attn.qkv.weight", "attn/qkv/kernel", "linear"),
      ("attn.q_bias", "attn/q_bias", "copy"),
      ("attn.v_bias", "attn/v_bias", "copy"),
      ("attn.q_proj", "attn/q_proj", "dense"),
      ("attn.k_proj.weight", "attn/k_proj/kernel", "linear"),
      ("attn.v_proj", "attn/v_proj", "dense"),
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


class Attention(nn.Module):
  """Self-attention without a bias of the key.

  Attributes:
    num_heads: number of heads.
    qkv_bias: add a bias to query and value.
    fused: one layer `qkv`, and `q_bias` and `v_bias`; else `q_proj`, `k_proj`
      and `v_proj`.
    inner_norm: normalise what is attended, before the last layer.
    rotary: fields of `rotary.Rotary`; None does not turn query and key.
    out_init: initialiser of the kernel of `proj`.
    dtype: compute dtype; the softmax is in float32 at least.
  """

  num_heads: int
  qkv_bias: bool
  fused: bool
  inner_norm: bool
  rotary: Mapping[str, Any] | None
  out_init: initializers.Initializer
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
    """The projected result."""
    width = x.shape[-1]
    query, key, value = (
      y.reshape(*x.shape[:2], self.num_heads, -1)
      for y in (self._fused(x) if self.fused else self._split(x))
    )
    if self.rotary is not None:
      rotate = rotary.Rotary(**self.rotary)
      query, key = rotate(query), rotate(key)
    y = transformer.attend(query, key, value, module=self).reshape(x.shape)
    if self.inner_norm:
      y = layers.layer_norm(base.EPS, self.dtype, "norm")(y)
    return self._dense(width, "proj", True, self.out_init)(y)

  def _fused(self, x: Array) -> list[Array]:
    width = x.shape[-1]
    y = self._dense(3 * width, "qkv", False, transformer.INIT)(x)
    if self.qkv_bias:
      query, value = (
        self.param(name, initializers.zeros, (width,), jnp.float32)
        for name in ("q_bias", "v_bias")
      )
      bias = jnp.concatenate([query, jnp.zeros_like(query), value])
      y = y + bias.astype(y.dtype)
    return jnp.split(y, 3, axis=-1)

  def _split(self, x: Array) -> list[Array]:
    return [
      self._dense(x.shape[-1], name, use_bias, transformer.INIT)(x)
      for name, use_bias in (
        ("q_proj", self.qkv_bias),
        ("k_proj", False),
        ("v_proj", self.qkv_bias),
      )
    ]

  def _dense(
    self, width: int, name: str, use_bias: bool, init: initializers.Initializer
  ) -> nn.Module:
    return nn.Dense(
      width, use_bias=use_bias, dtype=self.dtype, kernel_init=init, name=name
    )


class NormedSwiGLU(nn.Module):
  """Gated MLP with a normalisation before its last layer.

  Attributes:
    width: hidden width.
    out_init: initialiser of the kernel of `fc2`.
    dtype: compute dtype.
  """

  width: int
  out_init: initializers.Initializer
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Parameters `fc1_g` (the gate), `fc1_x`, `norm` and `fc2`."""
    gate, y = (
      nn.Dense(
        self.width, dtype=self.dtype, kernel_init=transformer.INIT, name=name
      )(x)
      for name in ("fc1_g", "fc1_x")
    )
    y = layers.layer_norm(base.EPS, self.dtype, "norm")(nn.silu(gate) * y)
    return nn.Dense(
      x.shape[-1], dtype=self.dtype, kernel_init=self.out_init, name="fc2"
    )(y)


class Block(nn.Module):
  """Attention, then an MLP, each added to its input.

  Attributes:
    attn: fields of `Attention`.
    mlp: class and fields of the MLP.
    post_norm: normalise at the end of a branch instead of its entry.
    init_values: first value of the scale of each branch; None has no scales.
    drop_path: probability of dropping a branch.
    dtype: compute dtype.
  """

  attn: Mapping[str, Any]
  mlp: tuple[type[nn.Module], Mapping[str, Any]]
  post_norm: bool
  init_values: float | None
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n t d"], *, train: bool
  ) -> Float[Array, "n t d"]:
    """Two residual branches."""
    kind, fields = self.mlp
    attn = Attention(**self.attn, name="attn")
    x = x + self._branch(x, attn, "1", train)
    return x + self._branch(x, kind(**fields, name="mlp"), "2", train)

  def _branch(
    self, x: Array, layer: nn.Module, number: str, train: bool
  ) -> Array:
    norm = layers.layer_norm(base.EPS, self.dtype, "norm" + number)
    y = norm(layer(x)) if self.post_norm else layer(norm(x))
    if self.init_values is not None:
      y = transformer.LayerScale(self.init_values, name="ls" + number)(y)
    return layers.DropPath(self.drop_path)(y, train=train)


class Model(base.Model):
  """EVA family; `VARIANTS` lists the named members.

  Attributes:
    mean: see `Backbone`.
    std: see `Backbone`.
    patch_size: see `base.Model`.
    class_token: have a class token.
    qkv_fused: one layer for query, key and value.
    swiglu_mlp: gate the MLPs.
    scale_mlp: normalise inside the MLPs; needs swiglu_mlp.
    scale_attn_inner: normalise inside the attention.
    use_rot_pos_emb: turn query and key by their places.
    ref_feat_shape: grid to which these places are scaled, one number or (rows,
      columns); None is that of the images.
    use_post_norm: normalise at the end of the branches; needs
      init_values=None.
  """

  POOLS: ClassVar[tuple[str, ...]] = ("avg", "max", "avgmax", "token")

  mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
  std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
  patch_size: int | tuple[int, int] = 14
  class_token: bool = True
  qkv_fused: bool = True
  swiglu_mlp: bool = False
  scale_mlp: bool = False
  scale_attn_inner: bool = False
  use_rot_pos_emb: bool = False
  ref_feat_shape: int | tuple[int, int] | None = None
  use_post_norm: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.scale_mlp and not self.swiglu_mlp:
      raise ValueError("scale_mlp=True needs swiglu_mlp=True")
    if self.use_post_norm and self.init_values is not None:
      raise ValueError("use_post_norm=True needs init_values=None")
    if self.global_pool == "token" and not self.class_token:
      raise ValueError(
        "global_pool='token' needs class_token=True; without it use 'avg', "
        "'max' or 'avgmax'"
      )
    if self.ref_feat_shape is not None:
      pair = patches.pair(self.ref_feat_shape)
      backbone.positive("ref_feat_shape", pair, 2)
    if self.use_rot_pos_emb and self.embed_dim // self.num_heads % 4:
      raise ValueError(
        f"heads have {self.embed_dim // self.num_heads} channels; "
        "use_rot_pos_emb=True needs a multiple of 4"
      )

  @property
  def num_prefix_tokens(self) -> int:
    """Tokens before those of the patches."""
    return int(self.class_token)

  def blocks(
    self, numbers: Iterable[int]
  ) -> tuple[type[nn.Module], tuple[tuple[int, dict[str, Any]], ...]]:
    """See `token_net.TokenNet.blocks`."""
    return Block, tuple((i, self._block(i)) for i in numbers)

  def _block(self, number: int) -> dict[str, Any]:
    out = {"out_init": base.out_init(number), "dtype": self.dtype}
    return {
      "attn": {
        "num_heads": self.num_heads,
        "qkv_bias": self.qkv_bias,
        "fused": self.qkv_fused,
        "inner_norm": self.scale_attn_inner,
        "rotary": self._rotary(),
        **out,
      },
      "mlp": self._mlp(out),
      "post_norm": self.use_post_norm,
      "init_values": self.init_values,
      "drop_path": self.drop_path_of(number),
      "dtype": self.dtype,
    }

  def _rotary(self) -> dict[str, Any] | None:
    if not self.use_rot_pos_emb:
      return None
    reference = self.ref_feat_shape
    return {
      "grid": self.grid,
      "reference": None if reference is None else patches.pair(reference),
    }

  def _mlp(
    self, out: Mapping[str, Any]
  ) -> tuple[type[nn.Module], dict[str, Any]]:
    width = int(self.embed_dim * self.mlp_ratio)
    if self.scale_mlp:
      return NormedSwiGLU, {"width": width, **out}
    if not self.swiglu_mlp:
      return transformer.Mlp, {"width": width, **out}
    silu = transformer.ACTIVATIONS["silu"]
    gated = {"width": 2 * width, "gated": True, "activation": silu}
    return transformer.Mlp, {**gated, **out}
