import numpy as np
import pytest

from kd_jax.data.augment import paste

RNG = np.random.default_rng(0)
GLYPH = RNG.integers(0, 256, (8, 8)).astype(np.uint8)


def test_a_glyph_of_its_own_size_is_copied():
  found = paste.opacity(GLYPH, paste.Pose(8, 0, 7, 9), 16)
  expected = np.zeros((16, 16), np.float32)
  expected[5:13, 3:11] = GLYPH / GLYPH.max()
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_quarter_turn_is_counter_clockwise():
  found = paste.opacity(GLYPH, paste.Pose(8, 90, 8, 8), 16)
  expected = np.rot90(GLYPH / GLYPH.max())
  np.testing.assert_allclose(found[4:12, 4:12], expected, atol=1e-4)


def test_enlarging_keeps_the_centre_and_scales_the_area():
  blob = np.zeros((8, 8), np.uint8)
  blob[2:5, 3:7] = 200  # its centre is at x=5, y=3.5 of 8
  found = paste.opacity(blob, paste.Pose(24, 0, 15, 14), 32)
  rows, columns = np.indices(found.shape) + 0.5
  weight = found / found.sum()
  centre = (columns * weight).sum(), (rows * weight).sum()
  np.testing.assert_allclose(centre, (15 + 3, 14 - 1.5), atol=0.05)
  np.testing.assert_allclose((found >= 0.5).sum(), 9 * 12, rtol=0.15)


def test_poses_stay_inside():
  corners = []
  for _ in range(200):
    pose = paste.random_pose(RNG.random(4), 32, sides=(10, 22), rotation=45)
    assert 10 <= pose.side <= 22 and abs(pose.turn) <= 45
    angle = np.radians(pose.turn + np.arange(45, 360, 90))
    corner = np.array([np.cos(angle), np.sin(angle)]) * pose.side / 2**0.5
    corners.append(corner + [[pose.x], [pose.y]])
  corners = np.array(corners)
  np.testing.assert_allclose(corners.min((0, 2)), 0, atol=0.5)
  np.testing.assert_allclose(corners.max((0, 2)), 32, atol=0.5)
  assert corners.min() > -1e-9 and corners.max() < 32 + 1e-9
  large = paste.random_pose(np.ones(4) / 3, 20, sides=(30, 30), rotation=0)
  assert (large.x, large.y) == (10, 10)


@pytest.mark.parametrize("grey", [0, 90, 127, 255])
def test_colours_contrast(grey):
  under = np.full(3, grey, float)
  colours = [paste.contrasting(under, RNG) for _ in range(200)]
  distance = np.abs(np.mean(colours, 1) - grey)
  assert distance.min() >= 60
  assert np.std(colours, 0).min() > 20


def test_blending_and_boxes():
  image = np.zeros((4, 4, 3), np.float32)
  covered = np.zeros((4, 4), np.float32)
  covered[1, 2], covered[2, 3] = 0.25, 1
  found = paste.blend(image, covered, np.array([100.0, 200, 40]))
  np.testing.assert_allclose(found[1, 2], [25, 50, 10])
  np.testing.assert_allclose(found[2, 3], [100, 200, 40])
  assert found[0].max() == 0
  assert paste.bounding_box(covered > 0) == (2, 1, 4, 3)
