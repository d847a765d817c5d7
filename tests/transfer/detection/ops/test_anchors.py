"""Anchors, by hand and against those of Detectron2."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from kd_jax.transfer.detection.ops import anchors

GOLDEN = pathlib.Path(__file__).parents[3] / "golden"


def test_cell_by_hand():
  got = anchors.cell((8, 16), (0.25, 1, 4))
  assert got[0].tolist() == [-8, -2, 8, 2]
  assert got[1].tolist() == [-4, -4, 4, 4]
  assert got[2].tolist() == [-2, -8, 2, 8]
  np.testing.assert_array_equal(got[3:], 2 * got[:3])


def test_grid_is_row_major_with_anchors_fastest():
  cell = anchors.cell((8,), (0.5, 1, 2))
  got = anchors.grid((3, 5), 4, cell).reshape(3, 5, 3, 4)
  assert got.dtype == np.float32
  for y, x, a in np.ndindex(3, 5, 3):
    want = cell[a] + 4 * np.array([x, y, x, y])
    np.testing.assert_allclose(got[y, x, a], want, rtol=1e-6)


@pytest.mark.parametrize("name", ["det_r18_fpn", "det_r50_c4"])
def test_against_detectron2(name):
  if name == "det_r18_fpn":
    sizes = [(32,), (64,), (128,), (256,), (512,)]
    shapes = [(40, 48), (20, 24), (10, 12), (5, 6), (3, 3)]
    strides = [4, 8, 16, 32, 64]
  else:
    sizes, shapes, strides = [(32, 64, 128, 256, 512)], [(10, 12)], [16]
  with np.load(GOLDEN / f"{name}.npz") as golden:
    for i, (size, shape, stride) in enumerate(
      zip(sizes, shapes, strides, strict=True)
    ):
      cell = anchors.cell(size, (0.5, 1.0, 2.0))
      flat = anchors.grid(shape, stride, cell).ravel()
      every = max(1, flat.size // 4000) | 1
      np.testing.assert_array_equal(flat[::every], golden[f"anchors_{i}"])
