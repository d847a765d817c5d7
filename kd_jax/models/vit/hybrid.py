"""Vision transformers whose patches come from convolutions, as in timm.

ResNets with standardised filters and group normalisation (BiT's, but activated
behind each normalisation) make the tokens of R+ViT (arXiv:2010.11929,
2106.10270), three convolutions those of MobileCLIP's image tower (2311.17049).
Initialisation: convolutions of ResNets N(0, 2 / fan out), the others as in
PyTorch, the rest as in `vit`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks.tokens import patches
from kd_jax.models.vit import checkpoints, hybrid_stems, vit

adapt = checkpoints.adapt

# embed_dim, depth, num_heads.
_SIZES = {
  "tiny": (192, 12, 3),
  "small": (384, 12, 6),
  "base": (768, 12, 12),
  "large": (1024, 24, 16),
}


def _variant(
  size: str, image: int, **more: backbone.FieldValue
) -> dict[str, Any]:
  width, depth, heads = _SIZES[size]
  return {
    "embed_dim": width,
    "depth": depth,
    "num_heads": heads,
    "img_size": image,
    "input_size": (3, image, image),
    "crop_pct": 0.9 if image == 224 else 1.0,
    **more,
  }


_R26: dict[str, Any] = {"conv_layers": (2, 2, 2, 2), "patch_size": 32}
_R50: dict[str, Any] = {"conv_layers": (3, 4, 6, 3), "patch_size": 32}
_R50_16: dict[str, Any] = {"conv_layers": (3, 4, 9), "patch_size": 16}
_STEM: dict[str, Any] = {"conv_layers": (), "patch_size": 32}

VARIANTS = {
  "vit_tiny_r_s16_p8_224": _variant("tiny", 224, **_STEM),
  "vit_tiny_r_s16_p8_384": _variant("tiny", 384, **_STEM),
  "vit_small_r26_s32_224": _variant("small", 224, **_R26),
  "vit_small_r26_s32_384": _variant("small", 384, **_R26),
  "vit_base_r26_s32_224": _variant("base", 224, **_R26),
  "vit_base_r50_s16_224": _variant("base", 224, **_R50_16, num_classes=0),
  "vit_base_r50_s16_384": _variant("base", 384, **_R50_16),
  "vit_large_r50_s32_224": _variant("large", 224, **_R50),
  "vit_large_r50_s32_384": _variant("large", 384, **_R50),
  "vit_base_mci_224": _variant(
    "base",
    224,
    conv_type="mci",
    no_embed_class=True,
    num_classes=512,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
  ),
}

RULES = (*hybrid_stems.RULES, *vit.RULES)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


class Model(vit.Model):
  """ViT behind convolutions; `VARIANTS` lists the members. See `vit.Model`.

  Attributes:
    conv_type: 'resnet', or 'mci': three convolutions without overlap.
    conv_layers: blocks per stage of 'resnet'; none is its stem alone.
    patch_size: pixels of the image per token, down and across alike: those
      of the last map of the convolutions, or a multiple of 'resnet'.
  """

  PADS: ClassVar[bool] = False

  conv_type: str = "resnet"
  conv_layers: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of("conv_type", self.conv_type, ("resnet", "mci"))
    count = len(self.conv_layers)
    if count > 4:
      raise ValueError(f"conv_layers has {count} stages; at most 4")
    backbone.positive("conv_layers", self.conv_layers, count)
    if self.conv_type == "mci":
      backbone.one_of("patch_size", self.patch_size, (16,))
    elif self._side % hybrid_stems.stride(self.conv_layers):
      raise ValueError(
        f"patch_size is {self.patch_size}; with conv_layers="
        f"{self.conv_layers} it must be a multiple of "
        f"{hybrid_stems.stride(self.conv_layers)}"
      )

  @property
  def _side(self) -> int:
    height, width = patches.pair(self.patch_size)
    if height != width:
      raise ValueError(
        f"patch_size is {self.patch_size}; tokens behind convolutions are "
        "squares"
      )
    return height

  def run_stage(
    self, stage: str, x: Array, *, train: bool, **start: Any
  ) -> tuple[Array, dict[str, Array]]:
    """See `token_net.TokenNet.run_stage`; the stem may have statistics."""
    if stage != "stem":
      return super().run_stage(stage, x, train=train, **start)
    kind = hybrid_stems.Mci
    fields: dict[str, Any] = {"features": self.embed_dim}
    if self.conv_type == "resnet":
      kind = hybrid_stems.ResNet
      fields.update(depths=self.conv_layers, patch_size=self._side)
    stem = patches.Stem(
      self.embed_dim,
      patches.pair(self.patch_size),
      self.grid,
      self._prefix(),
      "patches" if self.no_embed_class else "all",
      self.norm_eps if self.pre_norm else None,
      self.dtype,
      norm=self.norm_layer,
      embedding=(kind, fields),
      name="stem",
    )
    x = stem(x, train=train)
    return x, {"stem": x}
