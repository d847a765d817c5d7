"""Detectron2: a pickle of arrays, as its checkpointer reads.

The bare names of a backbone are matched by their ends, wherever the detector
has it (`matching_heuristics`); the other forms are exact names.
"""

from __future__ import annotations

from pathlib import Path

from kd_jax import disk
from kd_jax.convert import pickles
from kd_jax.convert.layouts import shared
from kd_jax.convert.layouts.base import LEFT_OUT, Family, Layout, StateDict
from kd_jax.models.backbone import Backbone

AUTHOR = "kd_jax"
FILE = "model.pkl"
_BARE = "bare"
_ABOUT = """\
`model.pkl` holds the student for Detectron2. In the config of the detector,
besides `MODEL.WEIGHTS` (`train.init_checkpoint`), the path of the file:

```
{build}
```

{matching}
"""
_MATCHING = {
  _BARE: (
    "Its names are bare (`{name}`): Detectron2 matches them by\n"
    "their ends, and finds them under `backbone.bottom_up.` (FPN), under\n"
    "`backbone.` and, of res5, under `roi_heads.` (C4)."
  ),
  "fpn": "Its names are those of a pyramid, `backbone.bottom_up.{name}`.",
  "vitdet": "Its names are those of ViTDet, `backbone.net.{name}`.",
  "c4": (
    "Its names are those of a C4 detector: `backbone.{name}`, and\n`roi_heads."
    "res5` for the last stage. Detectron2's own head there is made of\n"
    "bottlenecks; a student of basic blocks needs one of basic blocks."
  ),
}
_RESNET_YAML = """\
INPUT:
  FORMAT: "RGB"
MODEL:
  PIXEL_MEAN: {mean}
  PIXEL_STD: {std}
  RESNETS:
    DEPTH: {depth}
    STRIDE_IN_1X1: False
    NUM_GROUPS: {groups}
    WIDTH_PER_GROUP: {width}
    RES2_OUT_CHANNELS: {channels}"""
_LAZY = """\
model.input_format = "RGB"
model.pixel_mean = {mean}
model.pixel_std = {std}
{net}"""


def _numbers(model: Backbone) -> dict[str, list[float]]:
  return {
    "mean": shared.bytes_of(model.mean),
    "std": shared.bytes_of(model.std),
  }


def _resnet(model: Backbone, name: str) -> str:
  del name
  return _RESNET_YAML.format(
    **_numbers(model),
    depth=shared.depth(model),
    groups=model.cardinality,
    width=model.base_width,
    channels=model.channels[0] * (4 if model.block == "bottleneck" else 1),
  )


def _lazy(net: str, model: Backbone) -> str:
  return _LAZY.format(net=net, **_numbers(model))


def _regnet(model: Backbone, name: str) -> str:
  del name
  return _lazy(
    "model.backbone.bottom_up = L(RegNet)(\n"
    "  stem_class=SimpleStem, stem_width=32, block_class=ResBottleneckBlock,\n"
    f"  depth={model.depth}, w_a={model.wa}, w_0={model.w0}, w_m={model.wm},\n"
    f"  group_width={model.group_size}, se_ratio={model.se_ratio},\n"
    '  norm="FrozenBN", out_features=["s1", "s2", "s3", "s4"])',
    model,
  )


def _swin(model: Backbone, name: str) -> str:
  del name
  return _lazy(
    "model.backbone.bottom_up = L(SwinTransformer)(\n"
    f"  embed_dim={model.embed_dim}, depths={list(model.depths)},\n"
    f"  num_heads={list(model.num_heads)}, window_size={model.window_size})",
    model,
  )


def _vit(model: Backbone, name: str) -> str:
  del name
  return _lazy(
    "model.backbone.net.update(\n"
    f"  depth={model.depth}, embed_dim={model.embed_dim}, "
    f"num_heads={model.num_heads},\n"
    f"  patch_size={model.patch_size}, pretrain_img_size={model.img_size})\n"
    "# Its relative positions (use_rel_pos) start anew.",
    model,
  )


_BLOCK = "layer{s}.{b}."
_RES = "res{s:+1}.{b}."
_RESNET = (
  ("conv1", "stem.conv1"),
  ("bn1", "stem.conv1.norm"),
  (_BLOCK + "conv{c}", _RES + "conv{c}"),
  (_BLOCK + "bn{c}", _RES + "conv{c}.norm"),
  (_BLOCK + "downsample.0", _RES + "shortcut"),
  (_BLOCK + "downsample.1", _RES + "shortcut.norm"),
)
_X = "s{s}.b{b}."
_REGNET = (
  ("stem.conv", "stem.conv"),
  ("stem.bn", "stem.bn"),
  *(
    pair
    for place, letter in zip("123", "abc", strict=True)
    for pair in (
      (f"{_X}conv{place}.conv", f"{_X}f.{letter}"),
      (f"{_X}conv{place}.bn", f"{_X}f.{letter}_bn"),
    )
  ),
  (_X + "se.fc1", _X + "f.se.f_ex.0"),
  (_X + "se.fc2", _X + "f.se.f_ex.2"),
  (_X + "downsample.conv", _X + "proj"),
  (_X + "downsample.bn", _X + "bn"),
)
_WINDOWS = "layers.{s}.blocks.{b}."
_SWIN = (
  *(
    (name, name)
    for name in (
      "patch_embed.proj",
      "patch_embed.norm",
      _WINDOWS + "norm{c}",
      _WINDOWS + "attn",
      _WINDOWS + "attn.qkv",
      _WINDOWS + "attn.proj",
      _WINDOWS + "mlp.fc{c}",
    )
  ),
  # The halving of a map ends a stage there and begins the next one here.
  ("layers.{s}.downsample.norm", "layers.{s:-1}.downsample.norm"),
  ("layers.{s}.downsample.reduction", "layers.{s:-1}.downsample.reduction"),
  ("norm", "norm3"),
)
_VIT = (
  *(
    (name, name)
    for name in (
      "patch_embed.proj",
      "pos_embed",
      "blocks.{b}.norm{c}",
      "blocks.{b}.attn.qkv",
      "blocks.{b}.attn.proj",
      "blocks.{b}.mlp.fc{c}",
    )
  ),
  # Detectors read the map, not the class token, and normalise it anew.
  ("cls_token", LEFT_OUT),
  ("norm", LEFT_OUT),
  ("fc_norm", LEFT_OUT),
)


def _finish_swin(tensors: StateDict) -> StateDict:
  return shared.normed(
    "norm{}", "layers.{}.blocks.0.norm1", shared.indexed(tensors)
  )


def _write(tensors: StateDict, folder: Path, form: str) -> None:
  tree = {
    "model": tensors,
    "__author__": AUTHOR,
    "matching_heuristics": form == _BARE,
  }
  disk.write(folder / FILE, pickles.dumps(tree))


def _about(build: str, model: Backbone, form: str) -> str:
  del model
  first = "res2.0.conv1.weight" if "RESNETS" in build else "blocks..."
  return _ABOUT.format(build=build, matching=_MATCHING[form].format(name=first))


LAYOUT = Layout(
  title="Detectron2",
  families={
    "resnet": Family(_RESNET, shared.RESNET, _resnet),
    "regnet": Family(_REGNET, shared.REGNET, _regnet),
    "swin": Family(_SWIN, shared.SWIN, _swin, _finish_swin),
    "vit": Family(_VIT, shared.VIT, _vit),
  },
  forms={
    _BARE: (),
    "fpn": (("", "backbone.bottom_up."),),
    "vitdet": (("", "backbone.net."),),
    "c4": (("res5", "roi_heads.res5"), ("", "backbone.")),
  },
  write=_write,
  about=_about,
)
