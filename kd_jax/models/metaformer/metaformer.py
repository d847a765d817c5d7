"""PoolFormer (arXiv:2111.11418), ConvFormer and CAFormer (2210.13452).

Names, widths and feature maps are timm's. 'stem' is at a stride of 4. All
kernels start from N(0, 0.02), biases from 0.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides
from kd_jax.models.blocks.tokens import transformer
from kd_jax.models.metaformer import blocks
from kd_jax.types import STAGES

_SMALL, _MIDDLE = (64, 128, 320, 512), (96, 192, 384, 768)


def _pool(
  depth: int,
  crop_pct: float,
  *,
  wide: bool = False,
  **more: backbone.FieldValue,
) -> dict[str, Any]:
  return {
    "depths": (depth, depth, 3 * depth, depth),
    "dims": _MIDDLE if wide else _SMALL,
    "crop_pct": crop_pct,
    **more,
  }


def _first(
  depth: int, crop_pct: float, scale: float, *, wide: bool = False
) -> Any:
  return _pool(
    depth,
    crop_pct,
    wide=wide,
    norm_layer="group",
    mlp_act="gelu",
    mlp_bias=True,
    down_norm=False,
    layer_scale_init_value=scale,
    res_scale_init_values=(0.0,) * 4,
  )


def _conv(
  depths: tuple[int, ...], dims: tuple[int, ...], *, attends: bool = False
) -> dict[str, Any]:
  last = "attention" if attends else "conv"
  return {
    "depths": depths,
    "dims": dims,
    "token_mixers": ("conv", "conv", last, last),
    "norm_layer": "layer_scale",
    "use_mlp_head": True,
    "crop_pct": 1.0,
  }


_18, _36 = (3, 3, 9, 3), (3, 12, 18, 3)
_M, _B = (96, 192, 384, 576), (128, 256, 512, 768)
VARIANTS = {
  "poolformer_s12": _first(2, 0.9, 1e-5),
  "poolformer_s24": _first(4, 0.9, 1e-5),
  "poolformer_s36": _first(6, 0.9, 1e-6),
  "poolformer_m36": _first(6, 0.95, 1e-6, wide=True),
  "poolformer_m48": _first(8, 0.95, 1e-6, wide=True),
  "poolformerv2_s12": _pool(2, 1.0),
  "poolformerv2_s24": _pool(4, 1.0),
  "poolformerv2_s36": _pool(6, 1.0),
  "poolformerv2_m36": _pool(6, 1.0, wide=True),
  "poolformerv2_m48": _pool(8, 1.0, wide=True),
  "convformer_s18": _conv(_18, _SMALL),
  "convformer_s36": _conv(_36, _SMALL),
  "convformer_m36": _conv(_36, _M),
  "convformer_b36": _conv(_36, _B),
  "caformer_s18": _conv(_18, _SMALL, attends=True),
  "caformer_s36": _conv(_36, _SMALL, attends=True),
  "caformer_m36": _conv(_36, _M, attends=True),
  "caformer_b36": _conv(_36, _B, attends=True),
}

_BLOCK = (
  ("norm{i}", "norm{i}", "affine"),
  ("token_mixer.pwconv{i}.weight", "token_mixer/pwconv{i}/kernel", "pointwise"),
  ("token_mixer.dwconv.weight", "token_mixer/dwconv/kernel", "conv"),
  ("token_mixer.act1.scale", "token_mixer/act1/scale", "copy"),
  ("token_mixer.act1.bias", "token_mixer/act1/bias", "copy"),
  ("token_mixer.qkv.weight", "token_mixer/qkv/kernel", "linear"),
  ("token_mixer.proj.weight", "token_mixer/proj/kernel", "linear"),
  ("layer_scale{i}.scale", "layer_scale{i}/scale", "copy"),
  ("res_scale{i}.scale", "res_scale{i}/scale", "copy"),
  ("mlp.fc{i}.weight", "conv_mlp/fc{i}/kernel", "pointwise"),
  ("mlp.fc{i}.bias", "conv_mlp/fc{i}/bias", "copy"),
  ("mlp.act.scale", "conv_mlp/act/scale", "copy"),
  ("mlp.act.bias", "conv_mlp/act/bias", "copy"),
  ("mlp.fc{i}", "mlp/fc{i}", "dense"),
  ("mlp.act.scale", "mlp/act/scale", "copy"),
  ("mlp.act.bias", "mlp/act/bias", "copy"),
)
RULES = (
  ("stem.conv", "params/stem/conv", "conv2d"),
  ("stem.norm", "params/stem/norm", "affine"),
  *(
    (f"stages.{k}.{theirs}", f"params/stage{k + 1}/{ours}", layout)
    for k in range(4)
    for theirs, ours, layout in (
      ("downsample.norm", "norm", "affine"),
      ("downsample.conv", "conv", "conv2d"),
      *((f"blocks.{{b}}.{t}", f"block{{b}}/{o}", how) for t, o, how in _BLOCK),
    )
  ),
  ("head.norm", "params/neck", "affine"),
  ("head.fc.fc{i}", "params/head/fc{i}", "dense"),
  ("head.fc.norm", "params/head/norm", "affine"),
  ("head.fc", "params/head", "dense"),
)


class Model(backbone.Backbone):
  """MetaFormer family; `VARIANTS` lists the named members.

  'pooled' is normalised, 'feature' is not.

  Attributes:
    interpolation: see `Backbone`.
    depths: blocks of the stages.
    dims: their channels.
    token_mixers: what mixes pixels, per stage, of `blocks.MIXERS`.
    norm_layer: one of `blocks.NORMS`.
    mlp_act: one of `blocks.ACTS`.
    mlp_bias: biases in the MLPs.
    down_norm: normalise after the stem and before later steps.
    layer_scale_init_value: first value of scales of branches; 0: none.
    res_scale_init_values: of scales of shortcuts, per stage; 0: none.
    use_mlp_head: the classifier has a hidden layer.
  """

  POOLS = ("avg", "max", "avgmax")

  interpolation: str = "bicubic"
  depths: tuple[int, ...] = (2, 2, 6, 2)
  dims: tuple[int, ...] = _SMALL
  token_mixers: tuple[str, ...] = ("pool",) * 4
  norm_layer: str = "group_scale"
  mlp_act: str = "star"
  mlp_bias: bool = False
  down_norm: bool = True
  layer_scale_init_value: float = 0.0
  res_scale_init_values: tuple[float, ...] = (0.0, 0.0, 1.0, 1.0)
  use_mlp_head: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.positive("depths", self.depths, 4)
    backbone.positive("dims", self.dims, 4)
    backbone.one_of("norm_layer", self.norm_layer, blocks.NORMS)
    backbone.one_of("mlp_act", self.mlp_act, blocks.ACTS)
    for name in ("token_mixers", "res_scale_init_values"):
      if len(getattr(self, name)) != 4:
        raise ValueError(
          f"{name} has {len(getattr(self, name))} entries, not 4"
        )
    for mixer in self.token_mixers:
      backbone.one_of("token_mixers", mixer, blocks.MIXERS)

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.dims[-1]

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'stage4'."""
    if stage == "head":
      return self._classify(x)
    if stage == "stem":
      stem = blocks.Stem(self.dims[0], self.down_norm, self.dtype, name="stem")
      x = stem(x)
      return x, {"stem": x}
    k = STAGES.index(stage) - 1
    down = k > 0 and self.dims[k] != self.dims[k - 1]
    layer = blocks.Stage(
      self.dims[k], down, self.down_norm, self._blocks(k), name=stage
    )
    x = layer(x, train=train)
    taps = {stage: x}
    return x, {**taps, "feature": x.mean((1, 2))} if k == 3 else taps

  def _classify(self, x: Array) -> tuple[Array, dict[str, Array]]:
    norm = layers.layer_norm(1e-6, self.dtype, "neck")
    pooled = logits = norm(layers.global_pool(x, self.global_pool))
    if self.num_classes and self.use_mlp_head:
      head = blocks.Head(self.num_classes, self.dtype, name="head")
      logits = head(pooled)
    elif self.num_classes:
      init = transformer.INIT
      fields = {"dtype": self.dtype, "kernel_init": init, "name": "head"}
      logits = layers.Dense(self.num_classes, **fields)(pooled)
    return logits, {"pooled": pooled, "logits": logits}

  def _blocks(self, k: int) -> tuple[dict[str, Any], ...]:
    shared = {
      "mixer": self.token_mixers[k],
      "norm": self.norm_layer,
      "act": self.mlp_act,
      "bias": self.mlp_bias,
      "layer_scale": self.layer_scale_init_value,
      "res_scale": self.res_scale_init_values[k],
      "dtype": self.dtype,
    }
    rates = strides.drop_rates(self.drop_path_rate, self.depths)[k]
    return tuple({**shared, "drop_path": rate} for rate in rates)
