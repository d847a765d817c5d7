"""Dilation in place of strides: `output_stride` and `dilation_type`."""

from __future__ import annotations

import json

import convzoo
import goldens as gw
import jax
import numpy as np
import pytest
import zoo
from flax import linen as nn

from kd_jax import models, trees

# As `convzoo.OPTIONS`, every network at an output stride of 16 and of 8.
OPTIONS = dict(np.load(gw.FOLDER / "options_dilated.npz"))
CASES = json.loads(str(OPTIONS["cases"]))
# Nothing of theirs at a stride of 16 is not also at one of 8.
SLOW = ("regnety_016-16", "mobilenetv2_035-16", "resnet50-16")
IDS = [f"{arch}-{fields['output_stride']}" for _, arch, fields, _ in CASES]
MARKED = [
  pytest.param(i, id=name, marks=pytest.mark.slow if name in SLOW else ())
  for i, name in enumerate(IDS)
]
SMALL = {"layers": [1, 1, 2, 2], "channels": [8, 8, 16, 24], "stem_width": 8}
ONES = [1, 1, 1, 1]
NETWORKS = (
  ("resnet18", SMALL),
  ("resnet50", SMALL),
  ("resnet50_clip_gap", {"width_factor": 0.125, "layers": ONES}),
  (
    "resnetv2_50x1_bit",
    {"width_factor": 0.25, "layers": ONES, "num_groups": 8},
  ),
  ("regnety_002", {"depth": 7, "w0": 16, "wa": 8.0, "wm": 1.5}),
  ("mobilenetv2_035", {}),
  ("convnext_atto", {"depths": ONES, "dims": [8, 8, 8, 8]}),
)


@pytest.mark.parametrize("index", MARKED)
def test_dilated_networks_are_those_of_timm(index):
  convzoo.check_options(index, options=OPTIONS)


@pytest.mark.parametrize(("name", "fields"), NETWORKS)
def test_dilated_networks_share_every_tensor(name, fields):
  kinds = [{"output_stride": 16}, {"output_stride": 8}]
  if name in ("resnet18", "resnet50"):
    kinds.append({"output_stride": 8, "dilation_type": "conv2"})
  plain = zoo.shapes(models.create_model(name, **fields))[1]
  for kind in kinds:
    found = zoo.shapes(models.create_model(name, **fields, **kind))[1]
    assert trees.flatten(found) == trees.flatten(plain)


def dilations(name, **fields):
  """{convolution: dilation} of the blocks of the last two stages."""
  found = {}
  model = models.create_model(name, num_classes=0, **SMALL, **fields)
  taps, variables = zoo.shapes(model)

  def note(call, args, kwargs, context):
    module = context.module
    if type(module).__name__ == "Conv" and context.method_name == "__call__":
      place = "/".join(module.path)
      if place.startswith(("stage3", "stage4")) and module.size == 3:
        found[place] = module.dilation
        assert module.stride == 1
    return call(*args, **kwargs)

  with nn.intercept_methods(note):
    jax.eval_shape(model.apply, variables, np.zeros((2, 64, 64, 3), np.float32))
  assert taps["stage4"].shape[1] == 8
  return found


def test_only_the_second_convolution_is_dilated():
  """As PSPNet's authors do; of a basic block timm dilates the first as well."""
  fields = {"output_stride": 8}
  timm = dilations("resnet18", **fields)
  ours = dilations("resnet18", dilation_type="conv2", **fields)
  for stage, dilation in (("stage3", 2), ("stage4", 4)):
    for block in ("block0", "block1"):
      assert ours[f"{stage}/{block}/conv1"] == 1
      assert ours[f"{stage}/{block}/conv2"] == dilation
    first = dilation // 2
    assert timm[f"{stage}/block0/conv1"] == first
    assert timm[f"{stage}/block1/conv1"] == dilation
  wide = dilations("resnet50", dilation_type="conv2", **fields)
  assert set(wide.values()) == {2, 4} and "stage3/block0/conv2" in wide


def test_teachers_are_told_apart():
  """The `repr` is their identity, and old ones stay what they were."""
  plain, other = (
    models.create_model("resnet18", dilation_type=kind)
    for kind in ("timm", "conv2")
  )
  assert "dilation" not in repr(plain) and "conv2" not in repr(plain)
  assert "conv2" in repr(other)
  with pytest.raises(ValueError, match="dilation_type is 'all'; allowed"):
    models.create_model("resnet18", dilation_type="all")
