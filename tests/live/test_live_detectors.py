"""Students as backbones of torchvision's detectors: strict, and the same maps.

Also needs torchvision.
"""

import jax
import numpy as np
import pytest
import timm_pair
import torch
from safetensors.torch import load_file

from kd_jax import convert

pytest.importorskip("torchvision")
from torchvision.models import detection  # noqa: E402 - it may be missing


def resnet50():
  return detection.fasterrcnn_resnet50_fpn(
    weights=None, weights_backbone=None
  ).backbone.body


def resnet18():
  return detection.backbone_utils.resnet_fpn_backbone(
    backbone_name="resnet18", weights=None
  ).body


def mobilenet():
  return detection.backbone_utils.mobilenet_backbone(
    backbone_name="mobilenet_v2", weights=None, fpn=True
  ).body


@pytest.mark.parametrize(
  ("name", "make", "taps"),
  [
    ("resnet50", resnet50, ("stage1", "stage2", "stage3", "stage4")),
    ("resnet18", resnet18, ("stage1", "stage2", "stage3", "stage4")),
    # torchvision's last map there is behind the last 1x1 convolution.
    ("mobilenetv2_100", mobilenet, ("final",)),
  ],
)
def test_torchvision(tmp_path, name, make, taps):
  _, model, variables = timm_pair.pair(name, num_classes=0)
  options = {"name": name, "layout": "torchvision"}
  folder = convert.save_layout(model, variables, tmp_path, **options)
  loaded = load_file(folder / "model.safetensors")
  prefix = "backbone.body."
  assert all(key.startswith(prefix) for key in loaded)
  body = make()
  body.load_state_dict({k.removeprefix(prefix): v for k, v in loaded.items()})
  x = timm_pair.images(96)
  with torch.no_grad():
    maps = list(body.double().eval()(timm_pair.nchw(x)).values())
  with jax.enable_x64(True):
    found = jax.device_get(model.apply(variables, x))
  for tap, theirs in zip(taps, maps[-len(taps) :], strict=True):
    wanted = theirs.permute(0, 2, 3, 1).numpy()
    assert np.ptp(wanted) > 0
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(
      found[tap], wanted, atol=1e-6 * scale, err_msg=tap
    )
