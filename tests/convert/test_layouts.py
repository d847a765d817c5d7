"""Students under the names of other people's detectors.

The names in tests/golden are those of Detectron2, torchvision 0.28, MMDetection
3.3 and MMPretrain 1.2, of networks that they built.
"""

import functools
import json
import pathlib
import re

import numpy as np
import pytest
import zoo
from safetensors import numpy as safetensors_numpy

from kd_jax import convert, models, resolve
from kd_jax.convert import pickles
from kd_jax.convert.layouts import shared

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
NAMES = json.loads((GOLDEN / "detector_names.json").read_text())
SMALL = {
  "swin_tiny_patch4_window7_224": {"depths": (2, 1, 1, 1), "embed_dim": 24},
  "convnextv2_atto": {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)},
}
SLOW = ("torchvision/resnet50", "mmdetection/mobilenetv2_050")
TINY = {"layers": (1, 1, 1, 1), "channels": (4, 4, 4, 4), "num_classes": 3}


@functools.cache
def student(name, **fields):
  model = models.create_model(name, **fields)
  return model, zoo.drawn(model)


def tensors(folder):
  path = folder / "model.pkl"
  if path.exists():
    return pickles.read(path)["model"]
  return safetensors_numpy.load_file(folder / "model.safetensors")


def shapes(found):
  return {name: list(array.shape) for name, array in found.items()}


def detectron2_names(file):
  meta = np.load(GOLDEN / f"{file}.npz")["meta_json"]
  return {
    name: shape
    for name, shape in json.loads(bytes(meta))["names"]
    if re.search(r"\.(stem|res\d\.\d)\.", name)
    and not name.endswith("num_batches_tracked")
  }


@pytest.mark.parametrize(
  ("name", "form", "file"),
  [
    ("resnet18", "fpn", "det_r18_fpn"),
    pytest.param("resnet50", "c4", "det_r50_c4", marks=pytest.mark.slow),
  ],
)
def test_names_of_detectron2(tmp_path, name, form, file):
  model, variables = student(name, num_classes=2)
  options = {"name": name, "layout": "detectron2", "form": form}
  folder = convert.save_layout(model, variables, tmp_path, **options)
  wanted = detectron2_names(file)
  assert len(wanted) >= 100
  assert shapes(tensors(folder)) == wanted
  assert pickles.read(folder / "model.pkl")["matching_heuristics"] is False


@pytest.mark.parametrize(
  "case",
  [
    pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW))
    for case in NAMES
  ],
)
def test_names(tmp_path, case):
  layout, name = case.split("/")
  model = models.create_model(name, num_classes=2, **SMALL.get(name, {}))
  variables = zoo.drawn(model)
  folder = convert.save_layout(
    model, variables, tmp_path, name=name, layout=layout
  )
  assert shapes(tensors(folder)) == NAMES[case]
  options = {"name": name, "layout": layout, "form": "bare"}
  bare = convert.save_layout(model, variables, tmp_path / "bare", **options)
  assert "backbone." not in str(list(tensors(bare)))


def test_bare_names_hold_the_same_numbers(tmp_path):
  model, variables = student("resnet18", **TINY)
  options = {"name": "resnet18", "layout": "detectron2"}
  folder = convert.save_layout(model, variables, tmp_path, **options)
  found = pickles.read(folder / "model.pkl")
  assert found["matching_heuristics"] is True
  assert found["__author__"] == "kd_jax"
  text = (folder / "README.md").read_text()
  assert 'DEPTH: "unknown: blocks (1, 1, 1, 1) of widths (4, 4, 4, 4)"' in text
  theirs = convert.to_timm(model, variables)
  pairs = {
    "stem.conv1.weight": "conv1.weight",
    "stem.conv1.norm.running_var": "bn1.running_var",
    "res2.0.conv1.norm.bias": "layer1.0.bn1.bias",
    "res5.0.conv2.weight": "layer4.0.conv2.weight",
    "res3.0.shortcut.norm.weight": "layer2.0.downsample.1.weight",
  }
  for new, old in pairs.items():
    np.testing.assert_array_equal(found["model"][new], theirs[old])
  assert not [name for name in found["model"] if "fc" in name]


def test_always_rgb(tmp_path):
  model, variables = student("resnet18", **TINY)
  bgr = model.clone(channel_order="bgr", mean=(1.0, 2.0, 3.0))
  for name, each in (("rgb", model), ("bgr", bgr)):
    where = {"name": "resnet18", "layout": "torchvision", "form": "bare"}
    convert.save_layout(each, variables, tmp_path / name, **where)
  rgb, flipped = (tensors(tmp_path / n)["conv1.weight"] for n in ("rgb", "bgr"))
  np.testing.assert_array_equal(rgb, flipped[:, ::-1])
  assert (
    "image_mean=[3.0, 2.0, 1.0]" in (tmp_path / "bgr/README.md").read_text()
  )


def test_halving_in_the_order_of_unfold(tmp_path):
  name = "swin_tiny_patch4_window7_224"
  model = models.create_model(name, num_classes=0, **SMALL[name])
  variables = zoo.drawn(model)
  options = {"name": name, "layout": "mmdetection", "form": "bare"}
  found = tensors(convert.save_layout(model, variables, tmp_path, **options))
  patch = np.random.default_rng(0).normal(size=(2, 2, 24))  # row, column
  ours = np.concatenate([patch[0, 0], patch[1, 0], patch[0, 1], patch[1, 1]])
  unfolded = patch.reshape(4, 24).T.reshape(-1)  # channels slowest
  merging = variables["params"]["stage2"]["downsample"]
  for kernel, vector, new in (
    (merging["reduction"]["kernel"], ours, "reduction.weight"),
    (merging["norm"]["scale"][:, None], ours, "norm.weight"),
  ):
    there = found[f"stages.0.downsample.{new}"]
    np.testing.assert_allclose(vector @ kernel, there @ unfolded, rtol=1e-5)
  np.testing.assert_array_equal(found["norm1.weight"], np.ones(48))
  np.testing.assert_array_equal(
    found["norm3.weight"], variables["params"]["neck"]["norm"]["scale"]
  )


def test_position_index():
  side, index = 3, shared.position_index(3)
  for a, b in np.ndindex(9, 9):
    down, across = a // side - b // side, a % side - b % side
    assert index[a, b] == (down + 2) * 5 + across + 2


@pytest.mark.parametrize("layout", ["detectron2", "mmdetection", "torchvision"])
def test_every_family_says_how_it_is_built(layout):
  layout = resolve.symbol("convert.layouts", layout, "LAYOUT")
  named = {"swin": "swin_tiny_patch4_window7_224"}
  named |= {"resnet": "resnext50_32x4d", "mobilenet": "mobilenetv2_100"}
  named |= {"regnet": "regnetx_002", "convnext": "convnext_tiny"}
  named |= {"vit": "vit_base_patch16_224"}
  for family, kind in layout.families.items():
    model = models.create_model(named[family])
    for form in layout.forms:
      text = layout.about(kind.build(model, named[family]), model, form)
      assert not re.search(r"\{\}|<|unknown", text)
      fact = {"resnet": "4", "swin": "96", "vit": "768"}.get(family, "")
      assert fact in text


def test_wide_resnets_are_no_resnext_without_groups():
  layout = resolve.symbol("convert.layouts", "mmdetection", "LAYOUT")
  build = layout.families["resnet"].build
  wide = build(models.create_model("wide_resnet50_2"), "wide_resnet50_2")
  assert 'depth="unknown: base_width=128 without groups"' in wide
  grouped = build(models.create_model("resnext50_32x4d"), "resnext50_32x4d")
  assert 'type="ResNeXt", depth=50, groups=32' in grouped


def test_mistakes(tmp_path):
  model, variables = student("resnet18", **TINY)

  def line(layout, form="", model=model, name="resnet18"):
    options = {"name": name, "layout": layout, "form": form}
    with pytest.raises(ValueError) as error:
      convert.save_layout(model, variables, tmp_path / "out", **options)
    assert "\n" not in str(error.value)
    return str(error.value)

  assert "has no 'yolo'" in line("yolo")
  assert "['bare', 'fpn', 'vitdet', 'c4']" in line("detectron2", "fnp")
  deep = model.clone(stem_type="deep")
  said = line("detectron2", model=deep)
  assert "has no resnet with stem_type='deep', only with ''" in said
  squeezed = line("mmdetection", model=model.clone(se_ratio=0.25))
  assert "has no resnet with se_ratio=0.25, only with 0.0" in squeezed
  vit = models.create_model("vit_tiny_patch16_224")
  said = line("torchvision", model=vit, name="vit_tiny_patch16_224")
  assert "no names for the family 'vit'; it has some for mobilenet, res" in said
  assert "is of the family 'resnet'" in line("torchvision", model=vit)
  assert not (tmp_path / "out").exists()


def test_windows_of_several_sizes_are_refused(tmp_path):
  name = "swin_tiny_patch4_window7_224"
  fields = {**SMALL[name], "img_size": 112}
  model = models.create_model(name, num_classes=0, **fields)
  options = {"name": name, "layout": "mmdetection"}
  with pytest.raises(ValueError, match="windows of one size.*always_partition"):
    convert.save_layout(model, zoo.drawn(model), tmp_path, **options)
