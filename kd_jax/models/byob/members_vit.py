"""The named members with attention: MobileViT."""

from __future__ import annotations

from typing import Any

from kd_jax.models import backbone

_SHARED: dict[str, Any] = {
  "downsample": "",
  "act_layer": "silu",
  "bottle_in": True,
  "linear_out": True,
  "interpolation": "bicubic",
  "crop_pct": 0.9,
  "mean": (0.0, 0.0, 0.0),
  "std": (1.0, 1.0, 1.0),
  "input_size": (3, 256, 256),
}


def _first(
  widths: tuple[int, ...],
  inner: tuple[int, ...],
  last: int,
  depth: int = 3,
  ratio: float = 4.0,
  **more: backbone.FieldValue,
) -> dict[str, Any]:
  """MobileViT; `inner` are the widths of what attends."""
  end = f"_g1_b{ratio}"
  stages = [
    f"bottle_d1_c{widths[0]}{end}",
    f"bottle_d{depth}_c{widths[1]}_s2{end}",
    *(
      f"bottle_d1_c{c}_s2{end} mobilevit_d1_c{c}_t{t}_w{w}_p2"
      for c, t, w in zip(widths[2:], (2, 4, 3), inner, strict=True)
    ),
  ]
  return {
    **_SHARED,
    "blocks": tuple(stages),
    "stem_chs": 16,
    "last_width": last,
    **more,
  }


def _second(factor: float) -> dict[str, Any]:
  """MobileViT V2."""
  a, b, *rest = (int(c * factor) for c in (64, 128, 256, 384, 512))
  end = "_g1_b2.0"
  stages = [
    f"bottle_d1_c{a}{end}",
    f"bottle_d2_c{b}_s2{end}",
    *(
      f"bottle_d1_c{c}_s2{end} mobilevit2_d1_c{c}_g1_b0.5_t{t}_p2"
      for c, t in zip(rest, (2, 4, 3), strict=True)
    ),
  ]
  return {
    **_SHARED,
    "blocks": tuple(stages),
    "stem_chs": int(32 * factor),
    "crop_pct": 0.888,
  }


MEMBERS: dict[str, dict[str, Any]] = {
  "mobilevit_xxs": _first((16, 24, 48, 64, 80), (64, 80, 96), 320, ratio=2.0),
  "mobilevit_xs": _first((32, 48, 64, 80, 96), (96, 120, 144), 384),
  "mobilevit_s": _first((32, 64, 96, 128, 160), (144, 192, 240), 640),
  **{
    f"mobilevitv2_{round(100 * factor):03d}": _second(factor)
    for factor in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
  },
}
