"""How the names of a family's models begin.

A family is loaded only when a name is asked for that may be its own. A new
family adds its line here.
"""

from __future__ import annotations

from collections.abc import Mapping

OF: Mapping[str, tuple[str, ...]] = {
  "beit": ("beit_", "beitv2_"),
  "byobnet": (
    "eca_res",
    "gcres",
    "gernet_",
    "mobileone_",
    "mobilevit",
    "regnetz_",
    "repvgg_",
    "resnet32",
    "resnet33",
    "resnet51",
    "resnet61",
    "resnext26",
    "seresnet33",
    "seresnext26ts",
    "test_byobnet",
  ),
  "clip_resnet": ("resnet",),
  "clip_resnet_gap": ("resnet",),
  "convnext": ("convnext",),
  "densenet": ("densenet",),
  "efficientnet": ("efficientnet", "test_efficientnet", "tf_", "tinynet_"),
  "efficientvit": ("efficientvit_b", "efficientvit_l"),
  "eva": ("eva", "vit_"),
  "fastvit": ("fastvit_",),
  "ghostnet": ("ghostnet",),
  "hgnet": ("hgnet",),
  "hybrid": (
    "vit_base_mci_",
    "vit_base_r",
    "vit_large_r",
    "vit_small_r",
    "vit_tiny_r_",
  ),
  "hiera": ("hiera_",),
  "maxxvit": ("coatne", "maxvit_", "maxxvit", "test_coatnet", "test_maxvit"),
  "metaformer": ("caformer_", "convformer_", "poolformer"),
  "mixer": ("gmixer_", "gmlp_", "mixer_", "resmlp_"),
  "mnasnet": ("fbnetc_", "mnasnet_", "semnasnet_", "spnasnet_"),
  "mobilenet": ("mobilenetv2_",),
  "mobilenetv1": ("mobilenetv1_",),
  "mobilenetv3": ("fbnetv3_", "lcnet_", "mobilenetv3_", "tf_"),
  "mobilenetv4": ("mobilenetv4_",),
  "regnet": ("regnet",),
  "repvit": ("repvit_",),
  "resnet": ("ecaresne", "resne", "seresne", "wide_resnet"),
  "resnetv2": ("resnetv2_",),
  "sam": ("samvit_",),
  "swin": ("swin_",),
  "swin_v2": ("swinv2_",),
  "tiny_vit": ("tiny_vit_",),
  "vgg": ("vgg",),
  "vit": (
    "aimv2_",
    "beit3_",
    "deit",
    "eva_large",
    "flexivit_",
    "test_vit",
    "vit_",
  ),
  "vitamin": ("vitamin_",),
  "xcit": ("xcit_",),
}
"""{module of `kd_jax.models`: starts of its names}."""
