"""Names and shapes of tensors, as timm's models have them and as they load."""

import pytest

from kd_jax.convert import rules, tags
from kd_jax.convert.pretrained import settings
from kd_jax.models import create_model

TINY = {"num_classes": 3, "layers": (1, 1, 1, 1), "channels": (4, 4, 8, 8)}


@pytest.fixture(scope="module")
def case():
  model = create_model("resnet18", **TINY)
  return model, {k: e.shape for k, e in rules.entries(model).items()}


def test_equal_shapes_load(case):
  assert tags.differences(*case) == []


def test_what_differs_is_said(case):
  model, shapes = case
  given = {k: v for k, v in shapes.items() if k != "bn1.weight"}
  given |= {"fc.weight": (4, 8), "extra": (2,)}
  assert tags.differences(model, given) == [
    "no bn1.weight",
    "fc.weight is (4, 8), here (3, 8)",
    "unknown extra",
  ]


def test_tables_of_indices_are_dropped_and_nothing_is_resized():
  small = {"img_size": 32, "patch_size": 8, "embed_dim": 8, "depth": 4}
  model = create_model("beit_base_patch16_224", num_heads=2, **small)
  given = {k: e.shape for k, e in rules.entries(model).items()}
  table = "blocks.0.attn.relative_position_index"
  assert tags.differences(model, {**given, table: (17, 17)}) == []
  name = "blocks.0.attn.relative_position_bias_table"
  (line,) = tags.differences(model, {**given, name: (5, 2)})
  assert line.startswith(f"{name} is (5, 2)")


def test_settings_of_a_tag():
  facts = {
    "input_size": (3, 384, 384),
    "fixed_input_size": True,
    "num_classes": 0,
    "global_pool": "",
    "model_args": {"depth": 2},
  }
  name = "vit_tiny_patch16_224"
  fields = settings(name, facts)
  assert fields["img_size"] == 384 and fields["depth"] == 2
  assert fields["num_classes"] == 0 and "global_pool" not in fields
  assert settings(name, facts, {"img_size": 32})["img_size"] == 32
  wide = {**facts, "input_size": (3, 256, 384)}
  assert settings(name, wide)["img_size"] == (256, 384)
  assert "img_size" not in settings("resnet18", facts)


def test_without_timm(monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "timm", None)
  with pytest.raises(ValueError, match=r"kd_jax\[torch\]"):
    tags.known()
