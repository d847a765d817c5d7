"""Licences of weights, said where they are chosen."""

import unittest.mock

import pytest

import runs
from kd_jax import config as config_lib
from kd_jax.convert import licences
from kd_jax.door import choice, listing, teachers
from kd_jax.tasks import which


@pytest.mark.parametrize(
  ("weights", "licence"),
  [
    ("timm/vit_base_patch16_dinov3.lvd1689m", "dinov3-license"),
    ("convnext_tiny.dinov3_lvd1689m", "dinov3-license"),
    ("hiera_base_224.mae_in1k_ft_in1k", "cc-by-nc-4.0"),
    ("vit_large_patch16_sapiens2.fb", "sapiens2-license"),
    ("resnet50.a1_in1k", ""),
    ("timm/vit_base_patch14_dinov2.lvd142m", ""),
    ("", ""),
  ],
)
def test_what_is_restricted(weights, licence):
  assert licences.restricted(weights) == licence
  assert (licence in licences.notice(weights)) and (
    bool(licence) == bool(licences.notice(weights))
  )


def test_it_is_said_where_a_teacher_is_chosen(capsys):
  listing.show()
  said = dict(
    line.split(maxsplit=1)
    for line in capsys.readouterr().out.splitlines()
    if line.partition(" ")[0] in teachers.ALIASES and "  " in line
  )
  assert said["dinov3-base"].endswith("(licence: dinov3-license)")
  assert "licence" not in said["dinov2-base"]


def test_the_page(tmp_path, capsys):
  path = tmp_path / "deep" / "which.md"
  config = config_lib.load(str(runs.ROOT / "configs" / "which.py"))
  config.teachers = ("vit_small_patch16_dinov3.lvd1689m",)
  config.students, config.output = ("resnet10t",), str(path)
  page = which.run(config, "")
  assert path.read_text() == page and page.rstrip() in capsys.readouterr().out
  (teacher,) = [x for x in page.splitlines() if x.startswith("| `vit")]
  assert "| 384 | 256 x 256 | dinov3-license |" in teacher
  (student,) = [x for x in page.splitlines() if x.startswith("| `res")]
  assert student.count("|") == teacher.count("|") - 1
  path.parent.joinpath("file").touch()
  config.output = f"{path.parent}/file/which.md"
  with pytest.raises(ValueError, match="which.md cannot be written"):
    which.run(config, "")


def test_the_stored_page_has_the_networks_of_the_config():
  config = config_lib.load(str(runs.ROOT / "configs" / "which.py"))
  text = (runs.ROOT / "docs" / "which.md").read_text()
  for name in (*config.teachers, *config.students):
    assert f"| `{name}` |" in text


def test_it_is_said_before_a_run():
  given = unittest.mock.Mock(image_size=224, lr=0.1)
  for weights, said in (
    ("timm/vit_small_patch16_dinov3.lvd1689m", 1),
    ("timm/vit_small_patch14_dinov2.lvd142m", 0),
  ):
    given.teacher.weights = weights
    lines = choice.Choice.lines(given)
    assert (
      sum("dinov3-license, which is not Apache" in x for x in lines) == said
    )
