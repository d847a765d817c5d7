"""What the timm teacher refuses; the real thing is compared in tests/live."""

import sys
import types

import jax
import pytest

from kd_jax.teachers import timm

NAMES = ("resnet18", "resnet50")


@pytest.fixture
def installed(monkeypatch):
  """Stand-ins that are importable and know two names."""
  fake = types.SimpleNamespace(
    is_model=lambda name: name in NAMES, list_models=lambda: list(NAMES)
  )
  monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
  monkeypatch.setitem(sys.modules, "timm", fake)


@pytest.mark.parametrize("missing", ["torch", "timm"])
def test_the_packages_are_named(missing, installed, monkeypatch):
  monkeypatch.setitem(sys.modules, missing, None)
  with pytest.raises(ValueError, match=f"no {missing}: pip install torch timm"):
    timm.load("resnet18", "", {})


def test_one_device_only(installed, monkeypatch):
  monkeypatch.setattr(jax, "device_count", lambda: 2)
  with pytest.raises(ValueError, match="one device only, and there are 2"):
    timm.load("resnet18", "", {})


def test_no_flax_network_runs():
  facts = timm.Facts("bicubic", 0.95, (3, 64, 64), "center")
  source = timm.Source("resnet18", "digest", facts, running=None)
  assert source.network is None
  assert source.evaluation_view.crop_pct == 0.95


def test_names_and_files(installed):
  near = r"timm has no model 'resnet19.a1_in1k'; near it are \['resnet18'"
  with pytest.raises(ValueError, match=near):
    timm.load("resnet19.a1_in1k", "", {})
  with pytest.raises(ValueError, match="no file or directory '/nosuch.pth'"):
    timm.load("resnet18.a1_in1k", "/nosuch.pth", {})


def test_stages_of_any_number_of_maps():
  five = {"stem": 0, "stage1": 1, "stage2": 2, "stage3": 3, "stage4": 4}
  assert timm.stages_of(5) == five
  for count, want in (
    (4, [0, 1, 2, 3]),
    (12, [2, 5, 8, 11]),
    (6, [0, 2, 3, 5]),
  ):
    assert list(timm.stages_of(count).values()) == want
  assert timm.stages_of(3) == {}
