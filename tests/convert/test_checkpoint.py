"""Files, directories and hub names."""

from __future__ import annotations

import json
import pickle
import sys
import types

import huggingface_hub
import ml_dtypes
import numpy as np
import pytest
from absl import logging
from safetensors import numpy as safetensors_numpy

from kd_jax.convert import read_checkpoint

TENSORS = {
  "module.a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
  "b": np.ones(2, ml_dtypes.bfloat16),
  "c": np.ones(2, np.float16),
  "n": np.zeros((), np.int64),
}
CONFIG = {
  "architecture": "resnet18",
  "num_classes": 7,
  "global_pool": "avg",
  "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "crop_pct": 0.9},
}


@pytest.fixture
def folder(tmp_path):
  path = tmp_path / "folder"
  path.mkdir()
  safetensors_numpy.save_file(TENSORS, path / "model.safetensors")
  (path / "config.json").write_text(json.dumps(CONFIG))
  return path


def _check(tensors):
  assert {k: v.dtype.name for k, v in tensors.items()} == {
    "a.weight": "float32",
    "b": "float32",
    "c": "float32",
    "n": "int64",
  }
  np.testing.assert_array_equal(tensors["a.weight"], [[0, 1, 2], [3, 4, 5]])
  assert tensors["n"].shape == ()


def test_directory_file_and_dict(folder):
  for source in (folder, str(folder), folder / "model.safetensors"):
    tensors, facts = read_checkpoint(source)
    _check(tensors)
    assert facts == {
      "architecture": "resnet18",
      "num_classes": 7,
      "global_pool": "avg",
      "mean": [0.1, 0.2, 0.3],
      "crop_pct": 0.9,
    }
  tensors, facts = read_checkpoint(TENSORS)
  _check(tensors)
  assert facts == {}


@pytest.mark.parametrize("prefix", ["", "hf-hub:", "hf_hub:"])
def test_hub_name(folder, monkeypatch, prefix):
  asked = []

  def download(name, **more):
    asked.append((name, more["allow_patterns"]))
    return str(folder)

  monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
  _check(read_checkpoint(prefix + "timm/resnet18.a1_in1k")[0])
  assert asked == [
    ("timm/resnet18.a1_in1k", ["model.safetensors", "config.json"])
  ]


def test_hub_without_network(monkeypatch):
  def fail(name, **more):
    raise OSError("Name or service not known")

  monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
  message = (
    r"cannot download 'timm/resnet18\.a1_in1k' \(OSError\).*run 'hf download "
    r"timm/resnet18\.a1_in1k model\.safetensors config\.json --local-dir DIR'"
  )
  with pytest.raises(ValueError, match=message):
    read_checkpoint("timm/resnet18.a1_in1k")


@pytest.mark.parametrize(
  "name, content, message",
  [
    ("cut.safetensors", None, r"cut\.safetensors cannot be read: .*"),
    ("empty.safetensors", b"", r"empty\.safetensors cannot be read"),
    ("weights.npz", b"x", r"weights\.npz is no checkpoint: allowed are \.saf"),
  ],
)
def test_unreadable_files(folder, name, content, message):
  whole = (folder / "model.safetensors").read_bytes()
  path = folder / name
  path.write_bytes(whole[:-3] if content is None else content)
  with pytest.raises(ValueError, match=message):
    read_checkpoint(path)


@pytest.mark.parametrize(
  "source, message",
  [
    ("nowhere", r"no file or directory 'nowhere'. A hub name looks like"),
    ("no/where.safetensors", r"no file or directory 'no/where\.safetensors'"),
    ({}, "the given dict holds no tensors"),
    ({"epoch": 3}, r"entry 'epoch' of the given dict is a int, no tensor"),
  ],
)
def test_wrong_sources(source, message):
  with pytest.raises(ValueError, match=message):
    read_checkpoint(source)


def test_directory_without_weights(tmp_path):
  with pytest.raises(ValueError, match=r"has no model\.safetensors"):
    read_checkpoint(tmp_path)


def test_config_that_is_not_timms(folder, monkeypatch):
  (folder / "config.json").write_text("{")
  with pytest.raises(ValueError, match=r"config\.json is not JSON"):
    read_checkpoint(folder)
  warnings = []
  monkeypatch.setattr(logging, "warning", lambda *args: warnings.append(args))
  (folder / "config.json").write_text('{"model_type": "vit"}')
  assert read_checkpoint(folder)[1] == {}
  assert "is not timm's" in warnings[0][0]


class _Tensor:
  """What is used of torch.Tensor; PyTorch is an optional dependency."""

  def __init__(self, array):
    self.array = array
    self.shape = array.shape

  def detach(self):
    return self

  def is_floating_point(self):
    return self.array.dtype != np.int64

  def float(self):
    return _Tensor(self.array.astype(np.float32))

  def numpy(self):
    return self.array

  def __array__(self, dtype=None, copy=None):
    return self.array


def _load(path, *, map_location, weights_only):
  assert map_location == "cpu" and weights_only
  with open(path, "rb") as file:
    tree = pickle.load(file)
  return _wrap(tree)


def _wrap(tree):
  if isinstance(tree, dict):
    return {k: _wrap(v) for k, v in tree.items()}
  return _Tensor(tree) if isinstance(tree, np.ndarray) else tree


@pytest.fixture
def torch(monkeypatch):
  module = types.SimpleNamespace(load=_load, Tensor=_Tensor)
  monkeypatch.setitem(sys.modules, "torch", module)


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_pytorch_files(tmp_path, suffix):
  path = tmp_path / f"weights{suffix}"
  for content in (
    TENSORS,
    {"state_dict": TENSORS, "epoch": 3},
    {"model": TENSORS, "args": None},
  ):
    path.write_bytes(pickle.dumps(content))
    _check(read_checkpoint(path)[0])


@pytest.mark.usefixtures("torch")
def test_damaged_pytorch_files(tmp_path):
  path = tmp_path / "weights.pth"
  path.write_bytes(pickle.dumps(TENSORS)[:-20])
  with pytest.raises(
    ValueError, match=r"weights\.pth cannot be read \(.*it is damaged"
  ):
    read_checkpoint(path)
  path.write_bytes(pickle.dumps([1, 2]))
  with pytest.raises(ValueError, match=r"holds a list, no state_dict"):
    read_checkpoint(path)
  path.write_bytes(pickle.dumps({"epoch": 3}))
  with pytest.raises(ValueError, match=r"entry 'epoch' of .* is a int"):
    read_checkpoint(path)


def test_pytorch_is_missing(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  path = tmp_path / "weights.pth"
  path.write_bytes(b"x")
  with pytest.raises(ValueError, match="PyTorch file: pip install torch"):
    read_checkpoint(path)
