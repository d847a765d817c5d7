"""The named CoAtNets and MaxViTs of timm and what their weights expect."""

from __future__ import annotations

from typing import Any

from kd_jax.models import backbone

Fields = dict[str, Any]

_PICO = {"embed_dim": (32, 64, 128, 256), "stem_width": (24, 32)}
_NANO = {"embed_dim": (64, 128, 256, 512), "stem_width": (32, 64)}
_BASE = {"embed_dim": (96, 192, 384, 768), "stem_width": (32, 64)}
_WIDE = {"embed_dim": (128, 256, 512, 1024), "stem_width": (64, 128)}
_HUGE = {"embed_dim": (192, 384, 768, 1536), "stem_width": (96, 192)}
_TINY = {"embed_dim": (32, 64, 96, 128), "stem_width": (16, 32)}

# What timm's own members do otherwise than the papers.
_OWN = {
  "conv_expand_output": False,
  "conv_output_bias": False,
  "transformer_expand_first": False,
}
_COAT = {
  **_OWN,
  "conv_act_layer": "silu",
  "conv_pre_norm_act": True,
  "conv_attn_act_layer": "relu",
}
_POOL, _MLP = (
  {"conv_stride_mode": "pool"},
  {"transformer_rel_pos_type": "mlp"},
)
_EARLY = {"conv_attn_early": True, "transformer_shortcut_bias": False}
_SILU = {"conv_attn_act_layer": "silu"}
_SCALED = {"transformer_init_values": 1e-6}
_MAX = {**_OWN, "conv_act_layer": "silu", "conv_attn_ratio": 1 / 16}
_COAT_OF_MAX = {**_MAX, "conv_output_bias": True, "conv_attn_ratio": 0.25}
_NEXT = {
  **_OWN,
  "conv_block_type": "convnext",
  "conv_output_bias": True,
  "transformer_init_values": 1e-6,
  **_MLP,
}
_GRID = {"transformer_no_block_attn": True}
_TF = {
  "stem_bias": True,
  "conv_norm_eps": 1e-3,
  "conv_act_layer": "gelu_tanh",
  "conv_padding": "same",
  "transformer_norm_eps": 1e-5,
  "transformer_act_layer": "gelu_tanh",
  "transformer_head_first": False,
  "transformer_rel_pos_type": "bias_tf",
}
_FOUR = {"block_type": ("M",) * 4}
_SHALLOW, _SMALL = {"depths": (1, 2, 3, 1)}, {"depths": (2, 2, 5, 2)}
_MIDDLE, _SEVEN = {"depths": (3, 4, 6, 3)}, {"depths": (2, 3, 7, 2)}
_DEEP = {"depths": (2, 6, 14, 2)}
_FACTS = {"mean": backbone.IMAGENET_MEAN, "std": backbone.IMAGENET_STD}
_LESS = {"crop_pct": 0.9}


def _of(
  *parts: Fields, image: int = 224, **more: backbone.FieldValue
) -> Fields:
  """The union of the parts; later ones win."""
  large = {"crop_pct": 1.0, "crop_mode": "squash"} if image > 256 else {}
  out: Fields = {"img_size": image, "input_size": (3, image, image), **large}
  for part in (*parts, more):
    out |= part
  return out


_COATNETS = {
  "coatnet_pico_rw_224": _of(_NANO, _COAT_OF_MAX),
  "coatnet_nano_rw_224": _of(_NANO, _MIDDLE, _COAT_OF_MAX, _POOL, _LESS),
  "coatnet_0_rw_224": _of(_BASE, _SEVEN, _COAT, _POOL, _EARLY),
  "coatnet_1_rw_224": _of(_BASE, _DEEP, _COAT, _EARLY),
  "coatnet_2_rw_224": _of(_WIDE, _DEEP, _COAT, _SILU),
  "coatnet_3_rw_224": _of(
    _HUGE, _DEEP, _COAT, _SILU, _SCALED, num_classes=11821
  ),
  "coatnet_bn_0_rw_224": _of(
    _BASE,
    _SEVEN,
    _COAT,
    _EARLY,
    _FACTS,
    transformer_norm_layer="batchnorm2d",
  ),
  "coatnet_rmlp_nano_rw_224": _of(
    _NANO, _MIDDLE, _COAT_OF_MAX, _MLP, _LESS, transformer_rel_pos_dim=384
  ),
  "coatnet_rmlp_0_rw_224": _of(_BASE, _SEVEN, _COAT, _MLP),
  "coatnet_rmlp_1_rw_224": _of(
    _BASE,
    _DEEP,
    _COAT,
    _POOL,
    _EARLY,
    _MLP,
    conv_pool_type="max",
    transformer_pool_type="max",
    transformer_rel_pos_dim=384,
  ),
  "coatnet_rmlp_1_rw2_224": _of(_BASE, _DEEP, _COAT, _MLP),
  "coatnet_rmlp_2_rw_224": _of(_WIDE, _DEEP, _COAT, _SILU, _SCALED, _MLP),
  "coatnet_rmlp_2_rw_384": _of(
    _WIDE, _DEEP, _COAT, _SILU, _SCALED, _MLP, image=384
  ),
  "coatnet_rmlp_3_rw_224": _of(_HUGE, _DEEP, _COAT, _SILU, _SCALED, _MLP),
  "coatnet_nano_cc_224": _of(
    _NANO,
    _MIDDLE,
    _COAT,
    _POOL,
    block_type=("C", "C", ("C", "T"), ("C", "T")),
  ),
  "coatnext_nano_rw_224": _of(
    _NANO,
    _MIDDLE,
    _NEXT,
    _LESS,
    conv_init_values=1e-5,
    transformer_init_values=None,
    transformer_rel_pos_type="bias",
  ),
  "test_coatnet": _of(
    _TINY, _COAT_OF_MAX, _POOL, image=160, depths=(1, 1, 2, 1)
  ),
}


def _paper(name: str, stem: int, *parts: Fields) -> Fields:
  """CoAtNets of the paper: a layer in front of the classifier."""
  fields = _of(*parts, stem_width=stem)
  return {name: {**fields, "head_hidden_size": fields["embed_dim"][-1]}}


_PAPER = {
  **_paper("coatnet_0_224", 64, _BASE),
  **_paper("coatnet_1_224", 64, _BASE, _DEEP),
  **_paper("coatnet_2_224", 128, _WIDE, _DEEP),
  **_paper("coatnet_3_224", 192, _HUGE, _DEEP),
  **_paper("coatnet_4_224", 192, _HUGE, {"depths": (2, 12, 28, 2)}),
  **_paper(
    "coatnet_5_224",
    192,
    {"embed_dim": (256, 512, 1280, 2048), "depths": (2, 12, 28, 2)},
  ),
}

_RMLP = {**_FOUR, **_MAX, **_MLP}
_HIDDEN = {"head_hidden_size": 768}
_MAXVITS = {
  "maxvit_pico_rw_256": _of(_PICO, _SMALL, _FOUR, _MAX, image=256),
  "maxvit_nano_rw_256": _of(_NANO, _SHALLOW, _FOUR, _MAX, image=256),
  "maxvit_tiny_rw_224": _of(_NANO, _SMALL, _FOUR, _MAX),
  "maxvit_tiny_rw_256": _of(_NANO, _SMALL, _FOUR, _MAX, image=256),
  "maxvit_tiny_pm_256": _of(
    _NANO, _SMALL, _MAX, image=256, block_type=("PM",) * 4
  ),
  "maxvit_rmlp_pico_rw_256": _of(_PICO, _SMALL, _RMLP, image=256),
  "maxvit_rmlp_nano_rw_256": _of(_NANO, _SHALLOW, _RMLP, image=256),
  "maxvit_rmlp_tiny_rw_256": _of(_NANO, _SMALL, _RMLP, image=256),
  "maxvit_rmlp_small_rw_224": _of(_BASE, _SMALL, _RMLP, _SCALED, _LESS),
  "maxvit_rmlp_small_rw_256": _of(_BASE, _SMALL, _RMLP, _SCALED, image=256),
  "maxvit_rmlp_base_rw_224": _of(_BASE, _DEEP, _RMLP, _HIDDEN),
  "maxvit_rmlp_base_rw_384": _of(_BASE, _DEEP, _RMLP, _HIDDEN, image=384),
  "test_maxvit": _of(_TINY, _FOUR, _MAX, image=160, depths=(1, 1, 1, 1)),
}

_NEXTS = {**_FOUR, **_NEXT}
_V2 = {**_NEXTS, **_GRID, "depths": (2, 6, 12, 2)}
_MAXXVITS = {
  "maxxvit_rmlp_nano_rw_256": _of(_NANO, _SHALLOW, _NEXTS, image=256),
  "maxxvit_rmlp_tiny_rw_256": _of(_NANO, _SMALL, _NEXTS, image=256),
  "maxxvit_rmlp_small_rw_256": _of(
    _BASE, _SMALL, _NEXTS, image=256, stem_width=(48, 96)
  ),
  "maxxvitv2_nano_rw_256": _of(
    _BASE,
    _NEXTS,
    _GRID,
    _SHALLOW,
    image=256,
    stem_width=(48, 96),
    transformer_rel_pos_type="bias",
  ),
  "maxxvitv2_rmlp_base_rw_224": _of(_WIDE, _V2),
  "maxxvitv2_rmlp_base_rw_384": _of(_WIDE, _V2, image=384),
  "maxxvitv2_rmlp_large_rw_224": _of(
    _V2,
    embed_dim=(160, 320, 640, 1280),
    stem_width=(80, 160),
    depths=(2, 6, 16, 2),
    head_hidden_size=1280,
  ),
}


def _tf(size: str, stem: int, *parts: Fields) -> dict[str, Fields]:
  """MaxViTs of the paper in three sizes of images."""
  out = {}
  for image in (224, 384, 512):
    fields = _of(*parts, _FOUR, _TF, image=image, stem_width=stem)
    hidden = {"head_hidden_size": fields["embed_dim"][-1]}
    facts: Fields = _FACTS if image == 224 and size != "xlarge" else {}
    out[f"maxvit_{size}_tf_{image}"] = {**fields, **hidden, **facts}
  return out


_TFS = {
  **_tf("tiny", 64, _NANO, _SMALL),
  **_tf("small", 64, _BASE, _SMALL),
  **_tf("base", 64, _BASE, _DEEP),
  **_tf("large", 128, _WIDE, _DEEP),
  **_tf("xlarge", 192, _HUGE, _DEEP),
}
_TFS["maxvit_xlarge_tf_224"]["num_classes"] = 21843

TABLE = {**_COATNETS, **_PAPER, **_MAXVITS, **_MAXXVITS, **_TFS}
"""{name: fields of `maxxvit.Model`}."""
