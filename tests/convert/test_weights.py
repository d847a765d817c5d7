"""Every tensor exactly once, and messages that say what to do."""

from __future__ import annotations

import jax
import ml_dtypes
import numpy as np
import pytest
import zoo

from kd_jax import convert, models, trees
from kd_jax.convert import rules


def _shapes(name, **fields):
  model = models.create_model(name, **fields)
  entries = rules.entries(model).items()
  return {k: np.broadcast_to(np.float32(1), e.shape) for k, e in entries}


def test_layouts():
  model = models.create_model("mobilenetv2_035", num_classes=3)
  entries = rules.entries(model)
  assert entries["conv_stem.weight"] == (
    "params/stem/conv/kernel",
    "conv",
    (16, 3, 3, 3),
  )
  assert entries["blocks.3.2.conv_dw.weight"].shape == (144, 1, 3, 3)
  assert entries["blocks.4.0.bn3.running_var"].path == (
    "batch_stats/stage3/block4_0/bn3/var"
  )
  assert entries["classifier.weight"].shape == (3, 1280)


def test_variables_are_copies(small):
  _, state_dict, variables = small
  state_dict = dict(state_dict)
  leaves = trees.flatten(variables)
  assert all(a.dtype == np.float32 for a in leaves.values())
  kernel = leaves["params/head/kernel"]
  np.testing.assert_array_equal(kernel, state_dict["fc.weight"].T)
  shared = [
    np.shares_memory(a, b) for a in leaves.values() for b in state_dict.values()
  ]
  assert not any(shared)


def test_low_precision_becomes_float32(small):
  model, state_dict, variables = small
  half = {k: v.astype(ml_dtypes.bfloat16) for k, v in state_dict.items()}
  got = trees.flatten(convert.from_timm(model, half))
  for path, want in trees.flatten(variables).items():
    assert got[path].dtype == np.float32
    np.testing.assert_allclose(got[path], want, rtol=2**-8)


def test_counters_are_accepted_and_written(small):
  model, state_dict, variables = small
  back = convert.to_timm(model, variables)
  counters = {k for k in back if k.endswith("num_batches_tracked")}
  assert set(back) == set(state_dict) | counters
  assert len(counters) == 13
  assert {(back[k].dtype, back[k].shape) for k in counters} == {
    (np.dtype(np.int64), ())
  }
  again = convert.from_timm(model, back)
  jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_no_classifier_drops_that_of_the_file(small):
  model, state_dict, _ = small
  bare = model.clone(num_classes=0)
  variables = convert.from_timm(bare, state_dict)
  assert "head" not in variables["params"]
  assert "fc.weight" not in convert.to_timm(bare, variables)


def _renamed(state_dict):
  return {f"backbone.{k}": v for k, v in state_dict.items()}


def _without(state_dict, *names):
  return {k: v for k, v in state_dict.items() if k not in names}


@pytest.mark.parametrize(
  "change, message",
  [
    (
      lambda s: _without(s, "conv1.weight", "bn1.bias"),
      r"2 missing: bn1\.bias, conv1\.weight; ",
    ),
    (lambda s: s | {"fc2.bias": s["fc.bias"]}, r"1 unknown: fc2\.bias; Is it"),
    (
      lambda s: s | {"conv1.weight": np.ones((64, 3, 3, 3))},
      r"1 of another shape: conv1\.weight \(file \(64, 3, 3, 3\), model "
      r"\(64, 3, 7, 7\)\);",
    ),
    (_renamed, r"67 missing: .* and 62 more; 67 unknown: backbone\.bn1\.bias"),
    (
      lambda s: _without(s, "fc.bias", "fc.weight"),
      r"only the classifier differs: pass num_classes=0 as in the file\.",
    ),
    (
      lambda s: s | {"fc.weight": np.ones((9, 16)), "fc.bias": np.ones(9)},
      r"pass num_classes=9 as in the file, or 0 to drop it",
    ),
    (
      lambda s: s | {"fc.bias": np.ones(7, np.int32)},
      r"tensor fc\.bias is int32; weights are floating point",
    ),
  ],
)
def test_unfit_tensors(small, change, message):
  model, state_dict, _ = small
  with pytest.raises(ValueError, match=message):
    convert.from_timm(model, change(dict(state_dict)))


def test_names_the_variant_that_fits():
  model = models.create_model("resnet18")
  with (
    zoo.zeros(),  # Dozens of variants are traced.
    pytest.raises(ValueError, match=r"They fit 'resnet26'\."),
  ):
    convert.from_timm(model, _shapes("resnet26", num_classes=5))


def test_unfit_variables(small):
  model, _, variables = small
  flat = trees.flatten(variables)
  kernel = flat.pop("params/head/kernel")
  with pytest.raises(ValueError, match=r"they lack params/head/kernel"):
    convert.to_timm(model, trees.unflatten(flat))
  flat["params/head/kernel"] = kernel.T
  with pytest.raises(ValueError, match=r"\(16, 7\) as fc\.weight; the model"):
    convert.to_timm(model, trees.unflatten(flat))
  flat["params/extra/kernel"] = flat["params/head/kernel"] = kernel
  with pytest.raises(ValueError, match=r"it lacks params/extra/kernel"):
    convert.to_timm(model, trees.unflatten(flat))
