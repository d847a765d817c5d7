"""The table of models: counts by hand, and what is claimed to be checked."""

import re

import goldens as gw
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

import runs
from kd_jax import main
from kd_jax.convert import tags
from kd_jax.models import create_model
from kd_jax.models.blocks import convolutions
from kd_jax.report import tag_lists
from kd_jax.tasks import models

TINY = {"layers": (1, 1, 1, 1), "channels": (4, 4, 8, 8), "stem_width": 4}


def listed(capsys, *fields):
  flags = [f"--config.{field}" for field in fields]
  status = main.main(["--config", str(runs.ROOT / "configs/models.py"), *flags])
  return status, capsys.readouterr()


def count(function, *shapes):
  specs = (jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes)
  return models.flops(jax.make_jaxpr(function)(*specs).jaxpr)


def test_what_is_said_to_be_checked_has_a_golden():
  files = gw.FOLDER.glob("*.npz")
  cases = (path.stem for path in files if "meta_json" in np.load(path))
  archs = {gw.load(case)[0]["arch"] for case in cases}
  for path in gw.FOLDER.glob("small_*.npz"):
    stored = [f["case"] for f, _ in small.load(path.stem.partition("_")[2])]
    archs |= {arch for arch, fields, *_ in stored if not fields}
  assert archs == models.CHECKED


def test_operations_by_hand():
  assert count(lambda a, b: a @ b, (5, 7), (7, 3)) == 2 * 5 * 7 * 3
  batched = count(jax.vmap(jnp.dot), (4, 5, 7), (4, 7, 3))
  assert batched == 4 * 2 * 5 * 7 * 3

  def twice(x, w):
    return jax.lax.scan(lambda y, _: (y @ w, None), x, None, length=6)[0]

  assert count(jax.jit(twice), (5, 7), (7, 7)) == 6 * 2 * 5 * 7 * 7
  window = convolutions.Window(stride=2, dilation=1, padding=1)
  conv = lambda x, w: convolutions.conv(x, w, window)  # noqa: E731
  grouped = count(conv, (1, 8, 8, 6), (3, 3, 2, 9))
  assert grouped == 2 * 3 * 3 * 2 * (4 * 4 * 9)
  each = count(conv, (1, 8, 8, 6), (3, 3, 1, 6))
  assert each == 2 * 3 * 3 * (4 * 4 * 6)


def test_a_row_by_hand():
  model = create_model(
    "resnet18", num_classes=10, input_size=(3, 64, 32), **TINY
  )
  row = models.row("resnet18", model)
  # Kernels, with (pixels of their output); the stem, then four basic blocks.
  maps = {32 * 16: 49 * 3 * 4, 16 * 8: 2 * 9 * 16}
  maps[8 * 4] = 9 * 4 * 4 + 9 * 4 * 4 + 4 * 4
  maps[4 * 2] = 9 * 4 * 8 + 9 * 8 * 8 + 4 * 8
  maps[2 * 1] = 9 * 8 * 8 + 9 * 8 * 8 + 8 * 8
  products = sum(pixels * weights for pixels, weights in maps.items())
  assert row.flops == 2 * (products + 8 * 10)
  norms = 2 * (4 + 2 * 4 + 3 * 4 + 3 * 8 + 3 * 8)
  assert row.parameters == sum(maps.values()) + norms + 8 * 10 + 10
  assert (row.width, row.input_size) == (8, (3, 64, 32))
  wanted = "feature, feature_map, logits, pooled, stage1-4, stem"
  assert wanted in row.cells()


def test_the_table(tmp_path, capsys, monkeypatch):
  path = tmp_path / "docs" / "models.md"
  monkeypatch.setattr(models.tags, "available", lambda: False)
  status, said = listed(capsys, "match=resnet18*", f"output={path}")
  extra, head, *lines = said.out.splitlines()
  assert "kd_jax[torch]" in extra
  assert status == 0 and head.startswith("model") and len(lines) == 2
  # timm's figures: 11.69 M parameters, 1.82 GMACs.
  assert re.match(r"resnet18 +11\.69 +3\.6\d +512 +224 x 224 .* yes$", lines[0])
  assert lines[1].endswith("its family")
  table = [t for t in path.read_text().splitlines() if t.startswith("| res")]
  assert [re.split(" +", t.strip("| "))[0] for t in table] == [
    "resnet18",
    "resnet18d",
  ]


def test_mistakes(tmp_path, capsys):
  status, said = listed(capsys, "match=resnet10t", "tags=all")
  assert status == 1 and "config.tags is 'all'; allowed:" in said.err
  status, said = listed(capsys, "match=nosuch*")
  assert status == 1 and "no model matches 'nosuch*'" in said.err
  (tmp_path / "file").touch()
  out = f"output={tmp_path}/file/models.md"
  status, said = listed(capsys, "match=resnet10t", out)
  assert status == 1 and "models.md cannot be written" in said.err


def test_what_is_said_of_tags():
  found = [tags.Tag("a", "x", ""), tags.Tag("b", "y", "no w")]
  assert tag_lists.lines(found) == ["a.x  loads", "b.y  does not load: no w"]
  assert tag_lists.markdown(found) == "- `a`: x\n"
  assert tag_lists.total(found, "timm 1").startswith("1 of 2 pretrained tags")


def test_taps_are_shortened():
  names = ("stem", "stage1", "stage2", "block00", "block11", "pooled")
  want = ["block00-11", "pooled", "stage1-2", "stem"]
  assert models.short(names) == want


@pytest.mark.parametrize("name", ["mobilenetv2_035"])
def test_depthwise_layers_count_on_every_device(name):
  """timm's figure for MobileNetV2 at 0.35: 0.06 GMACs, a tenth convolutions."""
  found = models.row(name, create_model(name)).flops
  assert found / 2e9 == pytest.approx(0.059, rel=0.02)
