"""Variables stored by their paths here, and names with a tag."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import kd_jax
from kd_jax import convert, models
from kd_jax.convert import checkpoint


def test_round_trip_keeps_everything(small, tmp_path):
  model, _, variables = small
  model = model.clone(channel_order="bgr", mean=(0.1, 0.2, 0.3), crop_pct=0.8)
  convert.save_flax(model, variables, tmp_path, name="resnet18")
  again, loaded = kd_jax.load_pretrained("resnet18", tmp_path)
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, loaded, variables)
  stored = safetensors_numpy.load_file(tmp_path / "model.safetensors")
  kernel = variables["params"]["stem"]["conv1"]["kernel"]
  np.testing.assert_array_equal(stored["params/stem/conv1/kernel"], kernel)
  bare, params = kd_jax.load_pretrained("resnet18", tmp_path, num_classes=0)
  assert bare.num_classes == 0 and "head" not in params["params"]


def test_unfit_files(small, tmp_path):
  model, _, variables = small
  with pytest.raises(ValueError, match="'vit_tiny_patch16_224' is of the f"):
    convert.save_flax(model, variables, tmp_path, name="vit_tiny_patch16_224")
  convert.save_flax(model, variables, tmp_path, name="resnet18")
  with pytest.raises(ValueError, match="2 variables .* params/head/bias"):
    kd_jax.load_pretrained("resnet18", tmp_path, num_classes=9)
  (tmp_path / "config.json").unlink()
  with pytest.raises(ValueError, match="the config.json that it was written"):
    kd_jax.load_pretrained("resnet18", tmp_path)


def test_a_tag_names_the_weights_of_the_hub(small, tmp_path, monkeypatch):
  model, _, variables = small
  convert.save_timm(model, variables, tmp_path, name="resnet18")
  asked = []

  def local(name):
    asked.append(name)
    return tmp_path

  monkeypatch.setattr(checkpoint, "_download", local)
  found, loaded = kd_jax.load_pretrained("resnet18.a1_in1k")
  assert found.num_classes == 7 and asked == ["timm/resnet18.a1_in1k"]
  again = kd_jax.load_pretrained("resnet18.a1_in1k", tmp_path)[1]
  jax.tree.map(np.testing.assert_array_equal, again, loaded)
  assert len(asked) == 1
  with pytest.raises(ValueError, match="'resnet18' says no weights"):
    kd_jax.load_pretrained("resnet18")
  with pytest.raises(ValueError, match="no model 'resnet18.a1_in1k'"):
    models.create_model("resnet18.a1_in1k")
