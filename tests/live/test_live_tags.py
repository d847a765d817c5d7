"""Which of timm's pretrained tags load, by the shapes of timm's own models."""

import pytest

import runs
from kd_jax import main, models
from kd_jax.convert import tags

SAMPLE = (
  "resnet18",
  "convnext_atto",
  "mobilenetv3_small_075",
  "vit_tiny_patch16_224",
  "swin_tiny_patch4_window7_224",
  "efficientnet_b0",
  "hiera_tiny_224",
)


@pytest.mark.parametrize("name", SAMPLE)
def test_all_tags_load(name):
  known = tags.known()[name]
  found = list(tags.check(name, known))
  assert [tag.tag for tag in found] == known
  assert not [tag for tag in found if tag.problem]


def test_no_tag_of_an_unknown_architecture():
  name = next(name for name in tags.known() if not models.exists(name))
  assert all("no such" in t.problem for t in tags.check(name, ["tag"]))


def test_shapes_tell(monkeypatch):
  """The comparison is with the tag's own settings, and not with names alone."""
  whole = tags.pretrained.settings

  def wrong(*args):
    return {**whole(*args), "num_classes": 10}

  monkeypatch.setattr(tags.pretrained, "settings", wrong)
  (found,) = tags.check("resnet18", ["a1_in1k"])
  assert "fc.weight is (1000, 512), here (10, 512)" in found.problem


def test_the_table_counts_them(tmp_path, capsys):
  path = tmp_path / "models.md"
  flags = ["match=resnet18*", "tags=list", f"output={path}"]
  config = str(runs.ROOT / "configs/models.py")
  assert not main.main(["--config", config, *(f"--config.{f}" for f in flags)])
  said = capsys.readouterr().out
  assert "resnet18.a1_in1k  loads\n" in said
  assert "\n9 of 9 pretrained tags of timm " in said
  text = path.read_text()
  assert "| yes | 7 |\n" in text and "- `resnet18d`: ra2_in1k, ra4_" in text
