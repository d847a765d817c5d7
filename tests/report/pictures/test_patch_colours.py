from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import sheets

from kd_jax.report.pictures import columns, look, patch_colours

RNG = np.random.default_rng(0)
PARTS = RNG.normal(size=(3, 40)) * [[9], [5], [3]]


def maps(weights, noise=0.01):
  """Positions that are mixtures of three parts."""
  clean = weights @ PARTS
  return (clean + noise * RNG.normal(size=clean.shape)).astype(np.float32)


def looked(**seen):
  image = RNG.integers(0, 256, (4, 32, 32, 3), np.uint8)
  images = look.Images(image, np.full(4, -1))
  return look.Looked(images, images, seen, {})


def test_components_are_those_of_the_positions():
  weights = RNG.normal(size=(4, 6, 5, 3))
  found = patch_colours.components(maps(weights))
  assert found.shape == (4, 6, 5, 3)
  flat = found.reshape(-1, 3)
  np.testing.assert_allclose(flat.T @ flat / len(flat), np.eye(3), atol=1e-6)
  rows = maps(weights, 0).reshape(-1, 40)
  left, values, right = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
  for k in range(3):
    wanted = (
      left[:, k]
      * np.sqrt(len(rows))
      * np.sign(right[k, np.abs(right[k]).argmax()])
    )
    np.testing.assert_allclose(flat[:, k], wanted, atol=0.02)
  assert values[3] < 1e-3


def test_components_that_a_map_lacks_are_0():
  found = patch_colours.components(RNG.normal(size=(1, 4, 4, 2)))
  assert found[..., :2].std() > 0.5 and not found[..., 2].any()
  assert (patch_colours.colours(found)[..., 2] == 0.5).all()


def test_colours_of_the_student_are_turned_to_the_teachers():
  weights = RNG.normal(size=(4, 8, 8, 3))
  mixed = weights @ np.linalg.qr(RNG.normal(size=(3, 3)))[0]
  teacher, student = map(patch_colours.components, (maps(weights), maps(mixed)))
  assert np.abs(student - teacher).mean() > 0.3
  found = patch_colours.turned(student, teacher)
  np.testing.assert_allclose(found, teacher, atol=0.1)
  # The teacher's grid may be finer.
  finer = teacher.repeat(2, 1).repeat(2, 2)
  np.testing.assert_allclose(patch_colours.turned(student, finer), found)


def test_colours_fill_their_range():
  rgb = patch_colours.colours(RNG.normal(size=(2, 9, 9, 3)))
  assert rgb.min() == 0 and rgb.max() == 1
  assert 0.4 < rgb.mean() < 0.6


def test_the_sheet_shows_each_map_beside_its_image():
  halves = np.zeros((4, 4, 4, 3))
  halves[:, :, 2:] = [3, -2, 1]
  given = looked(
    teacher=look.Seen(np.zeros((4, 1)), {"final": maps(halves)}),
    student=look.Seen(np.zeros((4, 1)), {"stage4": maps(halves[:, ::2])}),
  )
  png, words = patch_colours.draw(given)
  assert "teacher's final (4 x 4)" in words
  assert "student's stage4 (2 x 4)" in words and "Left out" not in words
  picture = sheets.pixels(png)
  assert picture.shape[1] == 900
  side = int((900 - 24) / 2 + 8) // 3 - 8
  left, middle = side + 8, 26 + side // 2
  dark, light = (
    picture[middle, round(left + share * side), :3].astype(int)
    for share in (0.25, 0.75)
  )
  assert np.abs(dark - light).sum() > 150
  again, _ = patch_colours.draw(given)
  assert again == png


@pytest.mark.parametrize(
  ("seen", "reason"),
  [
    ({}, "which has no map of 16 positions or more here"),
    ({"final": np.full((4, 4, 4, 2), np.nan)}, "whose map is not finite"),
    ({"final": np.ones((4, 4, 4, 2))}, "whose map is the same everywhere"),
  ],
)
def test_what_has_no_colours_is_left_out_with_its_reason(seen, reason):
  none = look.Seen(np.zeros((4, 1)), seen)
  alone = patch_colours.draw(looked(student=none))
  assert alone.png is None
  assert (
    alone.words == f"No colours of patches. Left out: the student, {reason}."
  )
  good = look.Seen(np.zeros((4, 1)), {"final": RNG.normal(size=(4, 4, 4, 5))})
  given = looked(student=none, other=good)
  given = dataclasses.replace(given, absent={"teacher": "which is away"})
  png, words = patch_colours.draw(given)
  assert png and words.endswith(
    f"Left out: the teacher, which is away; the student, {reason}."
  )
  assert columns.missing({}) == ""
