"""MMDetection 3: `backbone` of any detector, in safetensors.

ConvNeXt is that of MMPretrain, which MMDetection takes it from.
"""

from __future__ import annotations

import numpy as np

from kd_jax.convert.layouts import shared
from kd_jax.convert.layouts.base import Family, Layout, StateDict
from kd_jax.convert.layouts.torchvision import RESNET_NAMES
from kd_jax.models.backbone import Backbone

_ABOUT = """\
`model.safetensors` holds the student for MMDetection, which reads PyTorch's
files:

```python
import torch
from safetensors.torch import load_file
torch.save({{"state_dict": load_file("model.safetensors")}}, "model.pth")
```

In the config of the detector:

```python
model = dict(
  data_preprocessor=dict(
    type="DetDataPreprocessor", bgr_to_rgb=True, pad_size_divisor=32,
    mean={mean},
    std={std},
  ),
  backbone=dict(
    {build},
    init_cfg=dict(type="Pretrained", checkpoint="model.pth"{prefix}),
  ),
)
```
"""


def _resnet(model: Backbone, name: str) -> str:
  del name
  depth = shared.depth(model)
  if model.cardinality == 1 and model.base_width == 64:
    return f'type="ResNet", depth={depth}, style="pytorch"'
  if model.cardinality == 1:
    # Its ResNeXt takes no notice of the width where there are no groups.
    depth = f'"unknown: base_width={model.base_width} without groups"'
    return f'type="ResNet", depth={depth}, style="pytorch"'
  return (
    f'type="ResNeXt", depth={depth}, groups={model.cardinality},\n    '
    f'base_width={model.base_width}, style="pytorch"'
  )


def _mobilenet(model: Backbone, name: str) -> str:
  del name
  return f'type="MobileNetV2", widen_factor={model.channel_multiplier}'


def _regnet(model: Backbone, name: str) -> str:
  del name
  return (
    f'type="RegNet", arch=dict(w0={model.w0}, wa={model.wa}, wm={model.wm},\n'
    f"      group_w={model.group_size}, depth={model.depth}, bot_mul=1.0)"
  )


def _swin(model: Backbone, name: str) -> str:
  del name
  return (
    f'type="SwinTransformer", embed_dims={model.embed_dim}, '
    f"depths={list(model.depths)},\n    num_heads={list(model.num_heads)}, "
    f"window_size={model.window_size}"
  )


def _convnext(model: Backbone, name: str) -> str:
  del name
  scale = model.ls_init_value or 0.0
  return (
    f'type="mmpretrain.ConvNeXt", arch=dict(depths={list(model.depths)},\n'
    f"      channels={list(model.dims)}), out_indices=[0, 1, 2, 3],\n    "
    f"use_grn={model.use_grn}, layer_scale_init_value={scale},\n    "
    "gap_before_final_norm=False"
  )


_GROUP = "blocks.{s}.{b}."
_LAYER = "layer{s:+1}.{b}."
_NARROW = (
  ("blocks.0.{b}.conv_dw", "layer1.{b}.depthwise_conv.conv"),
  ("blocks.0.{b}.bn1", "layer1.{b}.depthwise_conv.bn"),
  ("blocks.0.{b}.conv_pw", "layer1.{b}.linear_conv.conv"),
  ("blocks.0.{b}.bn2", "layer1.{b}.linear_conv.bn"),
)
_MOBILENET = (
  ("conv_stem", "conv1.conv"),
  ("bn1", "conv1.bn"),
  *_NARROW,
  (_GROUP + "conv_pw", _LAYER + "expand_conv.conv"),
  (_GROUP + "bn1", _LAYER + "expand_conv.bn"),
  (_GROUP + "conv_dw", _LAYER + "depthwise_conv.conv"),
  (_GROUP + "bn2", _LAYER + "depthwise_conv.bn"),
  (_GROUP + "conv_pwl", _LAYER + "linear_conv.conv"),
  (_GROUP + "bn3", _LAYER + "linear_conv.bn"),
  ("conv_head", "conv2.conv"),
  ("bn2", "conv2.bn"),
)
_X = "s{s}.b{b}."
_PLACE = "layer{s}.{b:-1}."
_REGNET = (
  ("stem.conv", "conv1"),
  ("stem.bn", "bn1"),
  (_X + "conv{c}.conv", _PLACE + "conv{c}"),
  (_X + "conv{c}.bn", _PLACE + "bn{c}"),
  (_X + "downsample.conv", _PLACE + "downsample.0"),
  (_X + "downsample.bn", _PLACE + "downsample.1"),
)
_WINDOWS = "layers.{s}.blocks.{b}."
_STAGE = "stages.{s}.blocks.{b}."
_SWIN = (
  ("patch_embed.proj", "patch_embed.projection"),
  ("patch_embed.norm", "patch_embed.norm"),
  (_WINDOWS + "norm{c}", _STAGE + "norm{c}"),
  (_WINDOWS + "attn", _STAGE + "attn.w_msa"),
  (_WINDOWS + "attn.qkv", _STAGE + "attn.w_msa.qkv"),
  (_WINDOWS + "attn.proj", _STAGE + "attn.w_msa.proj"),
  (_WINDOWS + "mlp.fc1", _STAGE + "ffn.layers.0.0"),
  (_WINDOWS + "mlp.fc2", _STAGE + "ffn.layers.1"),
  # The halving of a map ends a stage there and begins the next one here.
  ("layers.{s}.downsample.norm", "stages.{s:-1}.downsample.norm"),
  ("layers.{s}.downsample.reduction", "stages.{s:-1}.downsample.reduction"),
  ("norm", "norm3"),
)
_CELL = "stages.{s}.blocks.{b}."
_BLOCK = "stages.{s}.{b}."
_CONVNEXT = (
  ("stem.{c}", "downsample_layers.0.{c}"),
  ("stages.{s}.downsample.{c}", "downsample_layers.{s}.{c}"),
  (_CELL + "conv_dw", _BLOCK + "depthwise_conv"),
  (_CELL + "norm", _BLOCK + "norm"),
  (_CELL + "mlp.fc{c}", _BLOCK + "pointwise_conv{c}"),
  (_CELL + "mlp.grn.weight", _BLOCK + "grn.gamma"),
  (_CELL + "mlp.grn.bias", _BLOCK + "grn.beta"),
  (_CELL + "gamma", _BLOCK + "gamma"),
  ("head.norm", "norm3"),
)


def _finish_swin(tensors: StateDict) -> StateDict:
  found = shared.normed(
    "norm{}", "stages.{}.blocks.0.norm1", shared.indexed(tensors)
  )
  reordered = {k: _unfolded(v) for k, v in found.items() if "downsample" in k}
  return {**found, **reordered}


def _unfolded(array: np.ndarray) -> np.ndarray:
  """The last axis, over 2x2 pixels, in the order of PyTorch's unfold.

  Here it is (column, row, channel), there (channel, row, column).
  """
  rest = array.shape[:-1]
  split = array.reshape(*rest, 2, 2, -1)
  turned = np.moveaxis(split, (-3, -2, -1), (-1, -2, -3))
  return np.ascontiguousarray(turned.reshape(array.shape))


def _finish_convnext(tensors: StateDict) -> StateDict:
  flat = {
    k: v.reshape(v.shape[:2]) if "pointwise" in k and v.ndim == 4 else v
    for k, v in tensors.items()
  }
  return shared.normed("norm{}", "stages.{}.0.norm", flat)


def _about(build: str, model: Backbone, form: str) -> str:
  prefix = "" if form == "bare" else ', prefix="backbone."'
  if "SwinTransformer" in build:  # it looks for the prefix by itself
    prefix = ""
  return _ABOUT.format(
    build=build,
    prefix=prefix,
    mean=shared.bytes_of(model.mean),
    std=shared.bytes_of(model.std),
  )


LAYOUT = Layout(
  title="MMDetection",
  families={
    "resnet": Family(RESNET_NAMES, shared.RESNET, _resnet),
    "mobilenet": Family(_MOBILENET, shared.MOBILENETV2, _mobilenet),
    "regnet": Family(_REGNET, {**shared.REGNET, "se_ratio": 0.0}, _regnet),
    "swin": Family(_SWIN, shared.SWIN, _swin, _finish_swin),
    "convnext": Family(_CONVNEXT, shared.CONVNEXT, _convnext, _finish_convnext),
  },
  forms={"detector": (("", "backbone."),), "bare": ()},
  write=shared.write,
  about=_about,
)
