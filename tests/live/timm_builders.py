"""Members of timm's families with options that timm's own functions lack."""

from unittest import mock

import timm
import torch
from timm.models import ghostnet as timm_ghostnet
from timm.models import hgnet as timm_hgnet
from timm.models import metaformer as timm_metaformer
from timm.models import mlp_mixer as timm_mixer
from timm.models import mobilenetv3 as timm_mobilenetv3
from timm.models import vgg as timm_vgg
from timm.models._efficientnet_builder import decode_arch_def

from kd_jax import models


def mobilenetv4(arch, arch_def=None, head_width=1280, **fields):
  """timm's function has no option for the blocks."""
  if arch_def is None:
    return timm.create_model(arch, **fields)
  ours = models.create_model(arch)
  return timm_mobilenetv3.MobileNetV3(
    decode_arch_def([group.split() for group in arch_def]),
    stem_size=ours.stem_size,
    num_features=head_width,
    head_norm=True,
    act_layer=timm.layers.get_act_layer(ours.act_layer),
    layer_scale_init_value=ours.layer_scale_init_value or None,
    **fields,
  )


def metaformer(arch, num_classes, **fields):
  """timm's functions refuse fields that they set themselves."""

  def build(variant, pretrained, **given):
    del variant, pretrained
    return timm_metaformer.MetaFormer(**{**given, **fields})

  with mock.patch.object(timm_metaformer, "_create_metaformer", build):
    return getattr(timm_metaformer, arch)(num_classes=num_classes)


def hgnet(arch, num_classes, **fields):
  """timm has no options for widths."""
  ours = models.create_model(arch, **fields)
  config = {"stem_type": ours.stem_type, "stem_chs": list(ours.stem_chs)}
  width = ours.stem_chs[-1]
  for k in range(4):
    out = ours.widths[k]
    config[f"stage{k + 1}"] = [
      width,
      ours.middle[k],
      out,
      ours.depths[k],
      k > 0,
      ours.light[k],
      ours.kernel_sizes[k],
      ours.layer_num,
    ]
    width = out
  return timm_hgnet.HighPerfGpuNet(
    config, num_classes=num_classes, use_lab=ours.use_lab
  )


def vgg(arch, num_classes, depths, widths):
  """timm has no options for these."""
  config = []
  for depth, width in zip(depths, widths, strict=True):
    config += [width] * depth + ["M"]
  norm = torch.nn.BatchNorm2d if arch.endswith("_bn") else None
  return timm_vgg.VGG(config, num_classes=num_classes, norm_layer=norm)


def mixer(arch, num_classes, **fields):
  """timm's functions refuse fields that they set themselves."""

  def build(variant, pretrained, **given):
    del variant, pretrained
    given = {**given, **fields}
    # The other blocks have one MLP.
    if "block_layer" in given and fields:
      given["mlp_ratio"] = fields["mlp_ratio"][1]
    return timm_mixer.MlpMixer(**given)

  with mock.patch.object(timm_mixer, "_create_mixer", build):
    return getattr(timm_mixer, arch)(num_classes=num_classes)


def ghostnet(arch, num_classes, width=None, depths=None):
  """timm's functions have no option for the blocks."""

  def build(kind, variant, pretrained, cfgs, **given):
    del variant, pretrained, given["pretrained_filter_fn"], given["feature_cfg"]
    if depths is not None:
      cfgs = [rows[:n] for rows, n in zip(cfgs, depths, strict=True)]
    return kind(cfgs, **{**given, "width": width or given["width"]})

  with mock.patch.object(timm_ghostnet, "build_model_with_cfg", build):
    return getattr(timm_ghostnet, arch)(num_classes=num_classes)


def vit(arch, **fields):
  """Patches are padded here without a field for images of any size."""
  if "dynamic_img_pad" in fields:
    fields["dynamic_img_size"] = True
  return timm.create_model(arch, **fields)


BUILDERS = {
  "vit": vit,
  "ghostnet": ghostnet,
  "mixer": mixer,
  "vgg": vgg,
  "hgnet": hgnet,
  "metaformer": metaformer,
  "mobilenetv4": mobilenetv4,
}
