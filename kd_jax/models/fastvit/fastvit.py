"""FastViT (arXiv:2303.14189), MobileCLIP's image towers (2311.17049).

Names, widths and feature maps are timm's. 'stem' is at a stride of 4; a network
of five stages (MobileCLIP2) has the first of them in 'stem', so that 'stage1'
is at a stride of 8 and 'stage4' of 64. `fused` is what timm's
`reparameterize_model` makes. Initialisation: PyTorch's for convolutions with
normalisation, N(0, 0.02) for other layers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from flax import linen as nn
from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides
from kd_jax.models.blocks.tokens import transformer
from kd_jax.models.convs import conv_norm, mobile_one
from kd_jax.models.fastvit import blocks
from kd_jax.types import STAGES


def _variant(
  depths: tuple[int, ...], width: int, ratio: float, **more: backbone.FieldValue
) -> dict[str, Any]:
  return {
    "layers": depths,
    "embed_dims": tuple(width * 2**i for i in range(len(depths))),
    "mlp_ratios": (ratio,) * len(depths),
    **more,
  }


_REP = ("repmixer",) * 3
_ATTENTION: dict[str, Any] = {
  "token_mixers": (*_REP, "attention"),
  "pos_embs": (0, 0, 0, 7),
}
_RAW: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
_MCI: dict[str, Any] = {
  **_ATTENTION,
  **_RAW,
  "se_downsamples": (False, False, True, True),
  "lkc_use_act": True,
  "num_classes": 512,
  "crop_pct": 0.95,
}
_MCI2: dict[str, Any] = {
  "token_mixers": (*_REP, "attention", "attention"),
  "pos_embs": (0, 0, 0, 7, 7),
  "se_downsamples": (False,) * 5,
  "lkc_use_act": True,
  "norm_layer": "layernorm2d",
  "stem_use_scale_branch": False,
  "num_classes": 768,
  "crop_pct": 0.95,
  "mean": (0.48145466, 0.4578275, 0.40821073),
  "std": (0.26862954, 0.26130258, 0.27577711),
}
VARIANTS = {
  "fastvit_t8": _variant((2, 2, 4, 2), 48, 3),
  "fastvit_t12": _variant((2, 2, 6, 2), 64, 3),
  "fastvit_s12": _variant((2, 2, 6, 2), 64, 4),
  "fastvit_sa12": _variant((2, 2, 6, 2), 64, 4, **_ATTENTION),
  "fastvit_sa24": _variant((4, 4, 12, 4), 64, 4, **_ATTENTION),
  "fastvit_sa36": _variant((6, 6, 18, 6), 64, 4, **_ATTENTION),
  "fastvit_ma36": _variant((6, 6, 18, 6), 76, 4, crop_pct=0.95, **_ATTENTION),
  "fastvit_mci0": _variant((2, 6, 10, 2), 64, 3, **_MCI),
  "fastvit_mci1": _variant((4, 12, 20, 4), 64, 3, **_MCI),
  "fastvit_mci2": _variant((4, 12, 24, 4), 80, 3, **_MCI),
  "fastvit_mci3": _variant((2, 12, 24, 4, 2), 96, 4, **_MCI2),
  "fastvit_mci4": _variant((2, 12, 24, 4, 4), 128, 4, **_MCI2),
}

_DOWN = (
  ("large_conv.conv.weight", "large/large/conv/kernel", "conv"),
  ("large_conv.bn", "large/large/bn", "norm"),
  ("small_conv.conv.weight", "large/small/conv/kernel", "conv"),
  ("small_conv.bn", "large/small/bn", "norm"),
  ("reparam_conv", "large/merged", "conv2d"),
  ("se.fc1", "se/reduce", "conv2d"),
  ("se.fc2", "se/expand", "conv2d"),
)
_BLOCK = (
  ("token_mixer.norm.identity", "token_mixer/norm", "norm"),
  ("token_mixer.layer_scale.gamma", "token_mixer/layer_scale/gamma", "planes"),
  ("token_mixer.reparam_conv", "token_mixer/merged", "conv2d"),
  ("token_mixer.qkv.weight", "token_mixer/qkv/kernel", "linear"),
  ("token_mixer.proj", "token_mixer/proj", "dense"),
  ("norm", "norm", "norm"),
  ("layer_scale.gamma", "layer_scale/gamma", "planes"),
  ("layer_scale_{i}.gamma", "layer_scale_{i}/gamma", "planes"),
  ("mlp.conv.conv.weight", "mlp/conv/kernel", "conv"),
  ("mlp.conv.bn", "mlp/bn", "norm"),
  ("mlp.fc{i}.weight", "mlp/fc{i}/kernel", "pointwise"),
  ("mlp.fc{i}.bias", "mlp/fc{i}/bias", "copy"),
)


def _stage_rules(stage: str) -> tuple[mobile_one.Rule, ...]:
  """Timm's names of what lies in one of `STAGES`."""
  theirs, ours = "stages.{s}.", f"params/{stage}/s{{s}}/"
  block = f"{theirs}blocks.{{b}}.", f"{ours}block{{b}}/"
  proj = f"{theirs}downsample.proj."
  return (
    *((f"{proj}0.{t}", f"{ours}down/{o}", how) for t, o, how in _DOWN),
    *mobile_one.rules(f"{proj}1", f"{ours}down/point"),
    (f"{theirs}pos_emb.pos_enc", f"{ours}pos_emb/conv", "conv2d"),
    (f"{theirs}pos_emb.reparam_conv", f"{ours}pos_emb/merged", "conv2d"),
    *((block[0] + t, block[1] + o, how) for t, o, how in _BLOCK),
    *(
      (name, path.replace("token_mixer/conv/", "token_mixer/mixer/"), how)
      for name, path, how in mobile_one.rules(
        f"{block[0]}token_mixer.mixer", f"{block[1]}token_mixer"
      )
    ),
  )


RULES = (
  *mobile_one.rules("stem.{k}", "params/stem/first/{k}"),
  *(rule for stage in STAGES[:-1] for rule in _stage_rules(stage)),
  *mobile_one.rules("final_conv", "params/neck"),
  ("head.fc", "params/head", "dense"),
)


class _Part(NamedTuple):
  """A stage of timm's.

  Attributes:
    name: here.
    fields: of `blocks.Stage` but the style.
  """

  name: str
  fields: dict[str, Any]


class Model(backbone.Backbone):
  """FastViT family; `VARIANTS` lists the named members.

  It emits 'final' with the head: the map that global pooling reads; 'feature'
  is its mean before the activation.

  Attributes:
    interpolation: see `Backbone`.
    crop_pct: see `Backbone`.
    input_size: see `Backbone`.
    layers: blocks of the stages, four or five.
    embed_dims: their channels.
    mlp_ratios: hidden channels of an MLP per channel.
    token_mixers: 'repmixer' or 'attention', per stage.
    pos_embs: window of position encoding, per stage; 0 leaves it out.
    se_downsamples: squeeze-and-excitation after the step to a stage.
    repmixer_kernel_size: width of the depthwise windows.
    down_patch_size: width of the window of a step.
    layer_scale_init_value: first value of the scales of branches.
    lkc_use_act: an activation after a step.
    stem_use_scale_branch: 1x1 branches in the stem.
    cls_ratio: channels of the last map per channel of the last stage.
    norm_layer: before attention, 'batchnorm2d' or 'layernorm2d'.
    act_layer: activation, one of `conv_norm.ACTIVATIONS`.
    fused: the merged network, see `kd_jax.models.fuse`.
  """

  interpolation: str = "bicubic"
  crop_pct: float = 0.9
  input_size: tuple[int, ...] = (3, 256, 256)
  layers: tuple[int, ...] = (2, 2, 6, 2)
  embed_dims: tuple[int, ...] = (64, 128, 256, 512)
  mlp_ratios: tuple[float, ...] = (4.0,) * 4
  token_mixers: tuple[str, ...] = ("repmixer",) * 4
  pos_embs: tuple[int, ...] = (0,) * 4
  se_downsamples: tuple[bool, ...] = (False,) * 4
  repmixer_kernel_size: int = 3
  down_patch_size: int = 7
  layer_scale_init_value: float = 1e-5
  lkc_use_act: bool = False
  stem_use_scale_branch: bool = True
  cls_ratio: float = 2.0
  norm_layer: str = "batchnorm2d"
  act_layer: str = "gelu"
  fused: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    count = len(self.layers)
    backbone.one_of("the number of layers", count, (4, 5))
    backbone.positive("layers", self.layers, count)
    backbone.positive("embed_dims", self.embed_dims, count)
    for name in ("mlp_ratios", "token_mixers", "pos_embs", "se_downsamples"):
      if len(getattr(self, name)) != count:
        raise ValueError(
          f"{name} has {len(getattr(self, name))} entries; layers has {count}"
        )
    for width, mixer in zip(self.embed_dims, self.token_mixers, strict=True):
      backbone.one_of("token_mixers", mixer, ("repmixer", "attention"))
      if mixer == "attention" and width % blocks.HEAD_DIM:
        raise ValueError(
          f"embed_dims has {width} channels at a stage with attention; they "
          f"must be a multiple of {blocks.HEAD_DIM}"
        )
    backbone.one_of(
      "norm_layer", self.norm_layer, ("batchnorm2d", "layernorm2d")
    )
    backbone.one_of("act_layer", self.act_layer, conv_norm.ACTIVATIONS)

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self._last * layers.pool_factor(self.global_pool)

  @property
  def _last(self) -> int:
    return int(self.embed_dims[-1] * self.cls_ratio)

  @property
  def style(self) -> conv_norm.Style:
    """What the layers share."""
    return conv_norm.Style(self.act_layer, self.dtype, fused=self.fused)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'head'."""
    if stage != "head":
      x = _Level(self._stem(stage), self._parts(stage), self.style, name=stage)(
        x, train=train
      )
      return x, {stage: x}
    neck = mobile_one.MobileOne(
      self._last,
      self.style,
      3,
      groups=x.shape[-1],
      se_width=int(self._last / 16 + 0.5),
      act=False,
      name="neck",
    )
    x = neck(x, train=train)
    final = self.style.activate(x)
    logits, taps = backbone.classify(self, final, kernel_init=transformer.INIT)
    return logits, {"feature": x.mean((1, 2)), "final": final, **taps}

  def _stem(self, stage: str) -> dict[str, Any] | None:
    fields = {"width": self.embed_dims[0], "scale": self.stem_use_scale_branch}
    return fields if stage == "stem" else None

  def _parts(self, stage: str) -> tuple[_Part, ...]:
    """Timm's stages in one of `STAGES`: none or one."""
    index = STAGES.index(stage) - (len(self.layers) == 4)
    if index < 0:
      return ()
    rates = strides.drop_rates(self.drop_path_rate, self.layers)[index]
    width = self.embed_dims[index]
    down = {
      "width": width,
      "size": self.down_patch_size,
      "stride": 2,
      "gated": self.se_downsamples[index],
      "act": self.lkc_use_act,
    }
    shared = {
      "mixer": self.token_mixers[index],
      "size": self.repmixer_kernel_size,
      "ratio": self.mlp_ratios[index],
      "scale": self.layer_scale_init_value,
      "norm": self.norm_layer,
    }
    fields = {
      "down": down if index else None,
      "positions": self.pos_embs[index],
      "blocks": tuple({**shared, "drop_path": rate} for rate in rates),
    }
    return (_Part(f"s{index}", fields),)


class _Level(nn.Module):
  """One of `STAGES`.

  Attributes:
    stem: fields of the stem, or None.
    parts: the stages that follow.
    style: see `conv_norm`.
  """

  stem: dict[str, Any] | None
  parts: tuple[_Part, ...]
  style: conv_norm.Style

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    if self.stem is not None:
      stem = blocks.Stem(**self.stem, style=self.style, name="first")
      x = stem(x, train=train)
    for name, fields in self.parts:
      x = blocks.Stage(**fields, style=self.style, name=name)(x, train=train)
    return x
