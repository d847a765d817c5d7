from __future__ import annotations

import numpy as np
import pytest
import sheets

from kd_jax.data.sources import digits
from kd_jax.report.pictures import sheet as sheet_lib
from kd_jax.report.plots import COLORS


def test_every_pixel_of_a_tiny_image_becomes_a_square():
  digit = digits.Source("test")[3]["image"]
  sheet = sheet_lib.Sheet(100)
  assert sheet.image(digit, 10, 20, 80) == (10, 20, 10)
  found = sheets.pixels(sheet.png())
  assert found.shape == (100, sheet_lib.WIDTH, 4)
  wanted = digit.repeat(10, 0).repeat(10, 1)
  np.testing.assert_array_equal(found[20:100, 10:90, :3], wanted)
  assert not found[:20, :, 3].any() and not found[:, 90:, 3].any()


@pytest.mark.parametrize("shape", [(200, 400, 3), (3000, 1500, 3)])
def test_photographs_keep_their_shape(shape):
  photo = np.full(shape, 200, np.uint8)
  photo[shape[0] // 2 :] = 50
  sheet = sheet_lib.Sheet(120)
  left, top, scale = sheet.image(photo, 0, 10, 100)
  assert max(shape) * scale == pytest.approx(100)
  found = sheets.pixels(sheet.png())
  rows, columns = np.nonzero(found[..., 3] > 128)
  height, width = (scale * side for side in shape[:2])
  assert np.ptp(rows) + 1 == round(height)
  assert np.ptp(columns) + 1 == round(width)
  middle = round(left + width / 2)
  assert abs(int(found[round(top) + 3, middle, 0]) - 200) <= 2
  assert abs(int(found[round(top + height) - 4, middle, 0]) - 50) <= 2


def test_a_box_surrounds_what_it_encloses():
  sheet = sheet_lib.Sheet(60)
  sheet.box(20, 10, 30, 40, COLORS[1], thick=2)
  found = sheets.pixels(sheet.png())
  drawn = (found[..., :3] == sheets.colour(COLORS[1])).all(-1) & (
    found[..., 3] > 250
  )
  wanted = np.zeros(drawn.shape, bool)
  wanted[8:52, 18:52] = True
  wanted[10:50, 20:50] = False
  np.testing.assert_array_equal(drawn, wanted)


def test_names_of_classes():
  names = ("cat", "a very long name of a class")
  assert sheet_lib.class_name(-1, names) == ""
  assert sheet_lib.class_name(0, names) == "cat"
  assert sheet_lib.class_name(1, names) == "a very long n…"
  assert sheet_lib.class_name(7, ()) == "7"


def test_files_are_whole_or_not_there(tmp_path):
  path = sheet_lib.keep(tmp_path, "views", b"png")
  assert path == tmp_path / "pictures" / "views.png"
  sheet_lib.keep(tmp_path, "views", b"again")
  assert path.read_bytes() == b"again"
  assert list(path.parent.iterdir()) == [path]


def test_a_picture_has_a_sentence_or_a_reason_why_there_is_none(tmp_path):
  keep = sheet_lib.keep
  keep(tmp_path, "old", b"png", "What it shows, é.")
  keep(tmp_path, "plain", b"png", "gone")
  keep(tmp_path, "plain", b"png")
  assert sheet_lib.kept(tmp_path) == {
    "old": (b"png", "What it shows, é."),
    "plain": (b"png", ""),
  }
  keep(tmp_path, "old", None, "It is too small.")
  assert sheet_lib.kept(tmp_path)["old"] == (None, "It is too small.")
