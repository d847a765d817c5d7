"""torchvision's detectors: `backbone.body` of a feature pyramid."""

from __future__ import annotations

from kd_jax.convert.layouts import shared
from kd_jax.convert.layouts.base import Family, Layout
from kd_jax.models.backbone import Backbone

_BEFORE = (0, 1, 3, 6, 10, 13, 16)  # blocks before each group
_ABOUT = """\
`model.safetensors` holds the student for torchvision's detectors:

```python
from safetensors.torch import load_file
from torchvision.models import detection

backbone = {build}
detector = detection.FasterRCNN(
  backbone, num_classes=91, image_mean={mean}, image_std={std}
)
weights = load_file("model.safetensors")
weights = {{k.removeprefix("{prefix}"): v for k, v in weights.items()}}
detector.backbone.body.load_state_dict(weights)  # all of them, or it raises
```

Images are RGB in [0, 1]. This finds networks that torchvision has under the
same name; build others with `torchvision.models.resnet.ResNet` or
`torchvision.models.MobileNetV2(width_mult=...)`.
"""


def _resnet(model: Backbone, name: str) -> str:
  del model
  return (
    "detection.backbone_utils.resnet_fpn_backbone(\n"
    f'  backbone_name="{name}", weights=None\n)'
  )


def _mobilenet(model: Backbone, name: str) -> str:
  del model, name
  return (
    "detection.backbone_utils.mobilenet_backbone(\n"
    '  backbone_name="mobilenet_v2", weights=None, fpn=True\n)'
  )


def _mobilenet_names() -> tuple[tuple[str, str], ...]:
  """Blocks are numbered through, layers in them by their place."""
  wide = {"conv_pw": "0.0", "conv_dw": "1.0", "conv_pwl": "2"}
  wide |= {"bn1": "0.1", "bn2": "1.1", "bn3": "3"}
  narrow = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
  blocks = tuple(
    (f"blocks.{group}.{{b}}.{theirs}", f"{{b:+{before + 1}}}.conv.{ours}")
    for group, before in enumerate(_BEFORE)
    for theirs, ours in (wide if group else narrow).items()
  )
  ends = ("conv_stem", "0.0"), ("bn1", "0.1")
  return (*ends, *blocks, ("conv_head", "18.0"), ("bn2", "18.1"))


_BLOCK = "layer{s}.{b}."
RESNET_NAMES = tuple(
  (name, name)
  for name in (
    "conv1",
    "bn1",
    _BLOCK + "conv{c}",
    _BLOCK + "bn{c}",
    _BLOCK + "downsample.{c}",
  )
)
"""timm's names of a ResNet, which are torchvision's."""


def _about(build: str, model: Backbone, form: str) -> str:
  prefix = "" if form == "bare" else "backbone.body."
  facts = {"mean": list(model.mean), "std": list(model.std)}
  return _ABOUT.format(build=build, prefix=prefix, **facts)


LAYOUT = Layout(
  title="torchvision",
  families={
    "resnet": Family(RESNET_NAMES, shared.RESNET, _resnet),
    "mobilenet": Family(_mobilenet_names(), shared.MOBILENETV2, _mobilenet),
  },
  forms={"fpn": (("", "backbone.body."),), "bare": ()},
  write=shared.write,
  about=_about,
)
