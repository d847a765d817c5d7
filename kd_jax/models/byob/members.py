"""The named members of the family."""

from __future__ import annotations

from typing import Any

from kd_jax.models import backbone
from kd_jax.models.blocks import strides

_WIDTHS = (64, 128, 256, 512)


def _repvgg(
  factors: tuple[float, ...],
  depths: tuple[int, ...] = (4, 6, 16, 1),
  groups: int = 0,
  stem: int = 64,
  **more: backbone.FieldValue,
) -> dict[str, Any]:
  """Every other block has `groups` groups."""
  stages = []
  for depth, base, factor in zip(depths, _WIDTHS, factors, strict=True):
    width = strides.divisible(base * factor)
    words = [f"rep_d1_c{width}"] * depth
    if groups:
      words[1::2] = [f"{word}_g{width // groups}" for word in words[1::2]]
    words[0] = words[0].replace(f"_c{width}", f"_c{width}_s2")
    stages.append(" ".join(words))
  return {
    "blocks": tuple(stages),
    "stem_type": "rep",
    "stem_chs": stem,
    **more,
  }


def _mobileone(
  factors: tuple[float, ...],
  stem: int = 64,
  gated: tuple[int, ...] = (0, 0, 0, 0),
  branches: int = 1,
  **more: backbone.FieldValue,
) -> dict[str, Any]:
  """Depthwise and pointwise in turn; the last `gated` of each have gates."""
  width, stages = min(64, int(64 * factors[0])), []
  for depth, base, factor, last in zip(
    (2, 8, 10, 1), _WIDTHS, factors, gated, strict=True
  ):
    words, end = [], f"_n{branches}"
    for i in range(depth):
      out = strides.divisible(base * factor)
      gate = "_se" if i >= depth - last else ""
      stride = "" if i else "_s2"
      words.append(f"one_d1_c{width}{stride}_g1{end}{gate}")
      words.append(f"one_d1_c{out}_k1{end}{gate}")
      width = out
    stages.append(" ".join(words))
  return {
    "blocks": tuple(stages),
    "stem_type": "one",
    "stem_chs": stem,
    **more,
  }


def _resnet(
  depths: tuple[int, ...],
  widths: tuple[int, ...],
  group: int = 0,
  pool: str = "",
  **more: backbone.FieldValue,
) -> dict[str, Any]:
  """Bottlenecks after a tiered stem."""
  return {
    "blocks": tuple(
      f"bottle_d{d}_c{c}_s{2 if i else 1}_g{group}_b0.25"
      for i, (d, c) in enumerate(zip(depths, widths, strict=True))
    ),
    "stem_type": "tiered",
    "stem_chs": 64,
    "stem_pool": pool,
    **_BICUBIC,
    **more,
  }


def _regnetz(
  depths: tuple[int, ...],
  widths: tuple[int, ...],
  group: int,
  last: int,
  *,
  ratio: int = 4,
  small: bool = False,
  **more: backbone.FieldValue,
) -> dict[str, Any]:
  """Bottlenecks that widen, without an activation after sums."""
  first = 2 if small else 1
  stem = {"stem_chs": 32} if small else {"stem_type": "tiered", "stem_chs": 64}
  return {
    "blocks": tuple(
      f"bottle_d{d}_c{c}_s{2 if i else first}_g{group}_b{ratio}"
      for i, (d, c) in enumerate(zip(depths, widths, strict=True))
    ),
    "downsample": "",
    "last_width": last,
    "act_layer": "silu",
    "attn_layer": "se",
    "se_ratio": 0.25,
    "bottle_in": True,
    "linear_out": True,
    "interpolation": "bicubic",
    "crop_pct": 0.94,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "input_size": (3, 256, 256),
    **stem,
    **more,
  }


def _gernet(
  words: tuple[tuple[str, int, int, str], ...], stem: int, last: int
) -> dict[str, Any]:
  return {
    "blocks": tuple(
      f"{kind}_d{d}_c{c}_s{1 if i == 4 else 2}_{rest}"
      for i, (kind, d, c, rest) in enumerate(words)
    ),
    "stem_chs": stem,
    "last_width": last,
  }


_BICUBIC: dict[str, Any] = {
  "interpolation": "bicubic",
  "crop_pct": 0.9,
  "input_size": (3, 256, 256),
}
_IMAGE: dict[str, Any] = {"input_size": (3, 256, 256)}
_26: dict[str, Any] = {
  "depths": (2, 2, 2, 2),
  "widths": (256, 512, 1024, 2048),
  "group": 32,
  "pool": "maxpool",
  "act_layer": "silu",
}
_33: dict[str, Any] = {
  "depths": (2, 3, 3, 2),
  "widths": (256, 512, 1536, 1536),
  "act_layer": "silu",
}
_50: dict[str, Any] = {
  "depths": (3, 4, 6, 3),
  "widths": (256, 512, 1024, 2048),
  "attn_layer": "gca",
}
_Q = (
  "bottle_d4_c512_s2_g32_b0.25",
  "bottle_d6_c1536_s2_g32_b0.25",
  "bottle_d4_c1536_s2_g1_b1.0",
)
_QUAD: dict[str, Any] = {
  "stem_chs": 128,
  "last_width": 2048,
  "act_layer": "silu",
}
_NARROW, _WIDE, _DW = "g0_b1.0", "g0_b0.25", "g1_b3.0"
_LARGE = (("basic", 1, 128, _NARROW), ("basic", 2, 192, _NARROW))

MEMBERS: dict[str, dict[str, Any]] = {
  "gernet_l": {
    **_gernet(
      (
        *_LARGE,
        ("bottle", 6, 640, _WIDE),
        ("bottle", 5, 640, _DW),
        ("bottle", 4, 640, _DW),
      ),
      32,
      2560,
    ),
    **_IMAGE,
  },
  "gernet_m": _gernet(
    (
      *_LARGE,
      ("bottle", 6, 640, _WIDE),
      ("bottle", 4, 640, _DW),
      ("bottle", 1, 640, _DW),
    ),
    32,
    2560,
  ),
  "gernet_s": _gernet(
    (
      ("basic", 1, 48, _NARROW),
      ("basic", 3, 48, _NARROW),
      ("bottle", 7, 384, _WIDE),
      ("bottle", 2, 560, _DW),
      ("bottle", 1, 256, _DW),
    ),
    13,
    1920,
  ),
  "repvgg_a0": _repvgg((0.75, 0.75, 0.75, 2.5), (2, 4, 14, 1), stem=48),
  "repvgg_a1": _repvgg((1, 1, 1, 2.5), (2, 4, 14, 1)),
  "repvgg_a2": _repvgg((1.5, 1.5, 1.5, 2.75), (2, 4, 14, 1)),
  "repvgg_b0": _repvgg((1, 1, 1, 2.5)),
  "repvgg_b1": _repvgg((2, 2, 2, 4)),
  "repvgg_b1g4": _repvgg((2, 2, 2, 4), groups=4),
  "repvgg_b2": _repvgg((2.5, 2.5, 2.5, 5)),
  "repvgg_b2g4": _repvgg((2.5, 2.5, 2.5, 5), groups=4),
  "repvgg_b3": _repvgg((3, 3, 3, 5)),
  "repvgg_b3g4": _repvgg((3, 3, 3, 5), groups=4),
  "repvgg_d2se": _repvgg(
    (2.5, 2.5, 2.5, 5),
    (8, 14, 24, 1),
    attn_layer="se",
    se_ratio=0.0625,
    se_divisor=1,
    crop_pct=1.0,
    input_size=(3, 320, 320),
  ),
  "resnet51q": {
    "blocks": ("bottle_d2_c256_s1_g32_b0.25", *_Q),
    "stem_type": "quad2",
    **_QUAD,
    **_IMAGE,
  },
  "resnet61q": {
    "blocks": ("edge_d1_c256_s1_b1.0", *(f"{word}_x" for word in _Q)),
    "stem_type": "quad",
    **_QUAD,
    **_BICUBIC,
  },
  "resnext26ts": _resnet(**_26),
  "gcresnext26ts": _resnet(**_26, attn_layer="gca"),
  "seresnext26ts": _resnet(**_26, attn_layer="se"),
  "eca_resnext26ts": _resnet(**_26, attn_layer="eca"),
  "resnet32ts": _resnet(**_33),
  "resnet33ts": _resnet(**_33, last_width=1280),
  "gcresnet33ts": _resnet(**_33, last_width=1280, attn_layer="gca"),
  "seresnet33ts": _resnet(**_33, last_width=1280, attn_layer="se"),
  "eca_resnet33ts": _resnet(**_33, last_width=1280, attn_layer="eca"),
  "gcresnet50t": _resnet(**_50),
  "gcresnext50ts": _resnet(**_50, group=32, pool="maxpool", act_layer="silu"),
  "regnetz_b16": _regnetz(
    (2, 6, 12, 2),
    (48, 96, 192, 288),
    16,
    1536,
    ratio=3,
    small=True,
    input_size=(3, 224, 224),
  ),
  "regnetz_c16": _regnetz(
    (2, 6, 12, 2), (48, 96, 192, 288), 16, 1536, small=True
  ),
  "regnetz_d32": _regnetz(
    (3, 6, 12, 3), (64, 128, 256, 384), 32, 1792, crop_pct=0.95
  ),
  "regnetz_d8": _regnetz((3, 6, 12, 3), (64, 128, 256, 384), 8, 1792),
  "regnetz_e8": _regnetz((3, 8, 16, 3), (96, 192, 384, 512), 8, 2048),
  "mobileone_s0": _mobileone((0.75, 1, 1, 2), 48, branches=4),
  "mobileone_s1": _mobileone((1.5, 1.5, 2, 2.5), crop_pct=0.9),
  "mobileone_s2": _mobileone((1.5, 2, 2.5, 4), crop_pct=0.9),
  "mobileone_s3": _mobileone((2, 2.5, 3, 4), crop_pct=0.9),
  "mobileone_s4": _mobileone(
    (3, 3.5, 3.5, 4), gated=(0, 0, 5, 1), crop_pct=0.9
  ),
  "test_byobnet": {
    "blocks": (
      "edge_d1_c32_s2_b0.5",
      "dark_d1_c64_s2_b0.5",
      "basic_d1_c128_s2_g32_b0.25",
      "bottle_d1_c256_s2_g64_b0.25",
    ),
    "stem_chs": 24,
    "downsample": "avg",
    "attn_layer": "se",
    "se_ratio": 0.25,
    "interpolation": "bicubic",
    "crop_pct": 0.95,
    "input_size": (3, 160, 160),
  },
}
