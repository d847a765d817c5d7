"""Networks as ONNX, run by ONNX Runtime, against JAX."""

import sys

import families
import jax
import numpy as np
import pytest
import zoo

from kd_jax import models
from kd_jax.convert.onnx_graph import program
from kd_jax.models import fold, fuse

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "num_heads": 2}
SWIN = {
  "img_size": 64,
  "embed_dim": 4,
  "depths": (1, 1, 1, 2),
  "num_heads": (1, 1, 2, 2),
}
CASES = {
  "resnet10t": {"channels": (8, 8, 8, 8), "stem_width": 8},
  "vit_small_patch16_dinov3": {**VIT, "depth": 4},
  "mobilenetv3_small_050": {},
  "swin_tiny_patch4_window7_224": SWIN,
  "swinv2_tiny_window8_256": SWIN,
  "convnextv2_atto": {"depths": (1, 1, 1, 1)},
  "mixer_s16_224": {"num_blocks": 4, "embed_dim": 16, "img_size": 32},
  "regnety_002": {},
  "resnetv2_50x1_bit": {"layers": (1, 1, 1, 1)},
  "resnet50_clip": {"layers": (1, 1, 1, 1)},
  "resnetblur18": {},
  "resnet18": {"stem_type": "cifar", "channels": (8, 8, 8, 8)},
  "beit_base_patch16_224": {**VIT, "depth": 4},
  # One in three families of small networks; they share their operations.
  **{f.name: f.fields for f in [*families.FAMILIES.values()][::3]},
}
QUICK = ("resnet10t", "vit_small_patch16_dinov3")


def written(path, model, variables, size, context=None):
  """The outputs of the file for three images, and the file's own outputs."""
  runtime = pytest.importorskip("onnxruntime")

  def one(image):
    taps = model.apply(variables, image[None], train=False)
    return {name: taps[name][0] for name in ("logits", "pooled")}

  if context is None:
    program.save(one, size, path)
  else:
    with context():
      program.save(one, size, path)
  session = runtime.InferenceSession(str(path))
  images = np.random.default_rng(0).random((3, size, size, 3), np.float32)
  names = [output.name for output in session.get_outputs()]
  for n in (1, 3):
    found = session.run(None, {"images": images[:n]})
    assert {len(value) for value in found} == {n}
  return images, dict(zip(names, found, strict=True))


def equal(found, wanted):
  for name in ("logits", "pooled"):
    want = np.asarray(wanted[name])
    assert found[name].shape == want.shape and np.ptp(want) > 0
    near = 1e-4 * np.abs(want).max()
    np.testing.assert_allclose(found[name], want, rtol=0, atol=near)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in CASES
  ],
)
def test_outputs_are_those_of_jax(name, tmp_path):
  model = models.create_model(name, **{"num_classes": 6, **CASES[name]})
  size = max(model.example_size)
  if set(model.example_size) != {size}:
    model = model.clone(img_size=size)
  variables = zoo.drawn(model)
  path = tmp_path / "deep" / "model.onnx"
  images, found = written(path, model, variables, size)
  equal(found, jax.jit(model.apply)(variables, images))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["repvit", "fastvit"])
def test_merged_students(family, tmp_path):
  onnx = pytest.importorskip("onnx")
  tiny = families.FAMILIES[family].tiny()
  size = tiny.model.example_size[0]
  images, _ = written(tmp_path / "a", tiny.model, tiny.variables, size)
  model, variables = fuse.merge(tiny.model, tiny.variables)
  variables, context = fold.fold(model, variables)
  path = tmp_path / "b"
  _, found = written(path, model, variables, size, context)
  equal(found, jax.jit(tiny.model.apply)(tiny.variables, images))
  count = [len(onnx.load(tmp_path / p).graph.node) for p in "ab"]
  assert count[1] < 0.8 * count[0]


def test_without_the_package(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "onnx", None)
  with pytest.raises(ValueError, match=r'pip install "kd_jax\[onnx\]"'):
    program.save(lambda image: {"pooled": image}, 4, tmp_path / "model.onnx")


def test_an_operation_without_a_counterpart(tmp_path):
  pytest.importorskip("onnx")
  sort = lambda image: {"pooled": jax.numpy.sort(image, axis=0)}  # noqa: E731
  with pytest.raises(ValueError, match="ONNX is not written with .sort"):
    program.save(sort, 4, tmp_path / "model.onnx")
