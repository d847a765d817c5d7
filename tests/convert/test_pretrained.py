"""Models with their weights and preprocessing facts."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import zoo
from absl import logging
from safetensors import numpy as safetensors_numpy

import kd_jax
from kd_jax import convert, models
from kd_jax.convert import rules

FACTS = {
  "mean": (0.1, 0.2, 0.3),
  "std": (0.5, 0.6, 0.7),
  "interpolation": "bilinear",
  "crop_pct": 0.9,
  "crop_mode": "squash",
  "input_size": (3, 64, 64),
}


def _equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def _edit(folder, **changes):
  path = folder / "config.json"
  config = json.loads(path.read_text()) | changes
  path.write_text(json.dumps(config))


def test_round_trip_with_preprocessing(small, tmp_path):
  model, _, variables = small
  model = model.clone(stem_type="cifar", stem_width=64, **FACTS)
  variables = jax.tree.map(np.asarray, variables)
  kernel = variables["params"]["stem"]["conv1"]["kernel"][:3, :3]
  variables["params"]["stem"] |= {"conv1": {"kernel": kernel}}
  folder = convert.save_timm(model, variables, tmp_path / "a", name="resnet18")
  again, loaded = convert.load_pretrained("resnet18", folder)
  assert again == model
  _equal(loaded, variables)
  config = json.loads((folder / "config.json").read_text())
  assert config["architecture"] == "resnet18"
  assert config["num_classes"] == 7 and config["num_features"] == 16
  assert config["pretrained_cfg"]["mean"] == [0.1, 0.2, 0.3]


def test_no_classifier(small, tmp_path):
  model, _, variables = small
  convert.save_timm(model, variables, tmp_path / "a", name="resnet18")
  bare, params = convert.load_pretrained(
    "resnet18", tmp_path / "a", num_classes=0
  )
  assert bare.num_classes == 0 and "head" not in params["params"]
  convert.save_timm(bare, params, tmp_path / "b", name="resnet18")
  again, loaded = convert.load_pretrained("resnet18", tmp_path / "b")
  assert again == bare
  _equal(loaded, params)


def test_bgr_weights_are_stored_as_rgb(small, tmp_path):
  model, _, variables = small
  model = model.clone(channel_order="bgr", **FACTS)
  convert.save_timm(model, variables, tmp_path, name="resnet18")
  again, loaded = convert.load_pretrained("resnet18", tmp_path)
  assert again.channel_order == "rgb" and again.mean == (0.3, 0.2, 0.1)
  x = np.random.default_rng(0).uniform(size=(1, 16, 16, 3)).astype("float32")
  want = model.apply(variables, x, end="stem")["stem"]
  got = again.apply(loaded, x, end="stem")["stem"]
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_override_wins_over_config_over_family(small, tmp_path):
  model, _, variables = small
  model = model.clone(**FACTS)
  convert.save_timm(model, variables, tmp_path, name="resnet18")
  loaded, _ = convert.load_pretrained(
    "resnet18", tmp_path, crop_pct=0.8, dtype="bfloat16"
  )
  assert loaded.crop_pct == 0.8
  assert loaded.interpolation == "bilinear"
  assert loaded.channel_order == "rgb"
  assert models.create_model("resnet18").interpolation == "bicubic"


def test_a_config_without_a_mode_means_the_centre(tmp_path):
  tiny = {"channel_multiplier": 0.1, "depth_multiplier": 0.1, "num_classes": 0}
  model = models.create_model("efficientnet_b5", **tiny)
  assert model.crop_mode == "squash" and "squash" not in repr(model)
  variables = zoo.drawn(model)
  convert.save_flax(model, variables, tmp_path, name="efficientnet_b5")
  again, _ = convert.load_pretrained("efficientnet_b5", tmp_path)
  assert again == model
  facts = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
  assert facts.pop("crop_mode") == "squash"
  _edit(tmp_path, pretrained_cfg=facts)
  again, _ = convert.load_pretrained("efficientnet_b5", tmp_path)
  assert again == model.clone(crop_mode="center")


@pytest.fixture
def warned(monkeypatch):
  seen = []
  monkeypatch.setattr(
    logging, "warning", lambda text, *args: seen.append(text % args)
  )
  return seen


def test_warns_of_preprocessing_that_a_file_does_not_say(
  small, tmp_path, warned
):
  model, state_dict, variables = small
  path = tmp_path / "bare.safetensors"
  safetensors_numpy.save_file(state_dict, path)
  fields = {"layers": model.layers, "channels": model.channels}
  loaded, params = convert.load_pretrained("resnet18", path, **fields)
  assert loaded == model and loaded.num_classes == 7
  _equal(params, variables)
  (line,) = warned
  assert line.startswith(f"{path} has no config.json") and "'bicubic'" in line


def test_arrays_in_memory_and_our_own_files_need_no_warning(
  small, tmp_path, warned
):
  model, state_dict, variables = small
  fields = {"layers": model.layers, "channels": model.channels}
  loaded, params = convert.load_pretrained("resnet18", state_dict, **fields)
  assert loaded == model
  _equal(params, variables)
  for save in (convert.save_timm, convert.save_flax):
    folder = save(model, variables, tmp_path / save.__name__, name="resnet18")
    for source in (folder, folder / "model.safetensors"):
      assert convert.load_pretrained("resnet18", source)[0] == model
  assert warned == []


def test_wrong_requests(small, tmp_path):
  model, _, variables = small
  with pytest.raises(ValueError, match="'mobilenetv2_100' is of the family 'm"):
    convert.save_timm(model, variables, tmp_path, name="mobilenetv2_100")
  convert.save_timm(model, variables, tmp_path, name="resnet18")
  load = convert.load_pretrained
  with pytest.raises(ValueError, match="says 'resnet18', not 'resnet50'"):
    load("resnet50", tmp_path)
  with pytest.raises(ValueError, match="no model '18'"):
    convert.load_pretrained(18)
  with pytest.raises(ValueError, match="no model 'resnet19'"):
    load("resnet19", tmp_path)
  with pytest.raises(ValueError, match="pass num_classes=7 as in the file"):
    load("resnet18", tmp_path, num_classes=5)
  _edit(tmp_path, model_args={"act_layer": "silu"})
  with pytest.raises(ValueError, match="no option 'act_layer'"):
    load("resnet18", tmp_path)


def test_global_pool_comes_from_the_config(small, tmp_path):
  model, _, variables = small
  convert.save_timm(model, variables, tmp_path, name="resnet18")
  _edit(tmp_path, global_pool="max")
  loaded, _ = convert.load_pretrained("resnet18", tmp_path)
  assert loaded.global_pool == "max"


def test_file_is_in_pytorch_order(small, tmp_path):
  model, state_dict, variables = small
  convert.save_timm(model, variables, tmp_path, name="resnet18")
  stored = safetensors_numpy.load_file(tmp_path / "model.safetensors")
  for name, array in state_dict.items():
    np.testing.assert_array_equal(stored[name], array, strict=True)


def test_public_interface_is_lazy():
  code = (
    "import sys, kd_jax; assert 'jax' not in sys.modules; "
    "kd_jax.create_model; assert 'jax' in sys.modules; "
    "assert 'torch' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
  assert kd_jax.load_pretrained is convert.load_pretrained
  assert kd_jax.export_timm is convert.to_timm
  with pytest.raises(AttributeError, match="no 'nothing'; it has"):
    kd_jax.nothing  # noqa: B018


def test_classes_of_files_with_older_names_are_counted():
  fields = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
  model = models.create_model("convnext_atto", num_classes=7, **fields)
  renamed = {}
  for name, entry in rules.entries(model).items():
    # As in Facebook's own files.
    for new, old in (
      ("head.norm.", "norm."),
      ("head.fc.", "head."),
      ("stem.", "downsample_layers.0."),
      (".blocks.0.", ".0."),
      ("conv_dw", "dwconv"),
      ("mlp.fc", "pwconv"),
    ):
      name = name.replace(new, old)
    name = re.sub(r"stages\.(\d)\.downsample", r"downsample_layers.\1", name)
    renamed[name] = np.full(entry.shape, 0.1, np.float32)
  loaded, _ = convert.load_pretrained("convnext_atto", renamed, **fields)
  assert loaded.num_classes == 7
