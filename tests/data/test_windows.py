import math

import blocks
import cv2
import jax
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from kd_jax.data import windows
from kd_jax.data.dense import Dense
from kd_jax.data.sources import digits

FILL = (124, 116, 104)


def rows(source, dense, **options):
  options = {"batch_size": 4, **options}
  with windows.window_batches(source, dense, **options) as batches:
    return list(batches)


def authors_windows(height, width, crop):
  """The loop of the authors' scale_process: (top, left) of the windows."""
  height, width = max(height, crop), max(width, crop)
  stride = int(np.ceil(crop * (2 / 3)))
  grid = [int(np.ceil(float(n - crop) / stride) + 1) for n in (height, width)]
  return [
    (
      min(i * stride + crop, height) - crop,
      min(j * stride + crop, width) - crop,
    )
    for i in range(grid[0])
    for j in range(grid[1])
  ]


@pytest.mark.parametrize("crop", [1, 5, 33, 64, 65])
@pytest.mark.parametrize("size", [(64, 128), (65, 64), (10, 200), (107, 171)])
def test_windows_are_the_authors(size, crop):
  found = windows.starts(size, crop)
  assert list(found) == authors_windows(*size, crop)
  covered = np.zeros(size, bool)
  for top, left in found:
    covered[top : top + crop, left : left + crop] = True
  assert covered.all()


def test_known_numbers():
  # Cityscapes at 512: 3 x 6 windows (342 apart), 10 pixels of a row twice.
  assert len(windows.starts((1024, 2048), 512)) == 3 * 6
  assert windows.starts((512, 512), 512) == ((0, 0),)
  assert windows.resized((375, 500), 512, 1.0) == (384, 512)
  assert windows.resized((500, 375), 512, 0.5) == (256, 192)
  assert windows.resized((41, 41), 20, 1.0) == (20, 20)
  assert windows.resized((37, 53), 0, 1.0) == (37, 53)
  assert windows.resized((3, 500), 64, 1.0) == (1, 64)


def test_every_image_with_its_windows_and_mask():
  source = blocks.Source()
  dense = Dense(32, long_side=64, scales=(1.0, 0.75, 1.5), label_size=(70, 80))
  batches = rows(source, dense)
  assert [batch.mask.tolist() for batch in batches] == [
    [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0],
  ]  # fmt: skip
  shapes = {tuple(x.shape for x in jax.tree.leaves(b)) for b in batches}
  assert len(shapes) == 1
  first = batches[0]
  assert [v.image.shape[1:3] for v in first.views] == [(64, 64), (48, 48),
                                                       (96, 96)]  # fmt: skip
  assert [v.start.shape[1] for v in first.views] == [9, 4, 16]
  kinds = [x.dtype for x in jax.tree.leaves(first.views[0])]
  assert kinds == [np.uint8, np.int32, np.float32, np.int32]
  assert (first.label.dtype, first.size.dtype) == (np.int16, np.int32)
  for index in range(10):
    record = source[index]
    batch, row = batches[index // 4], index % 4
    check_mask(batch, row, record["mask"])
    for scale, view in zip(dense.scales, batch.views, strict=True):
      check_view(view, row, record["image"], round(64 * scale))


def check_mask(batch, row, mask):
  height, width = mask.shape
  assert batch.size[row].tolist() == [height, width]
  np.testing.assert_array_equal(batch.label[row, :height, :width], mask)
  assert (batch.label[row, height:] == -1).all()
  assert (batch.label[row, :, width:] == -1).all()


def check_view(view, row, image, long):
  height, width = image.shape[:2]
  if height > width:
    size = (long, round(long / height * width))
  else:
    size = (round(long / width * height), long)
  assert view.size[row].tolist() == list(size)
  wanted = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
  found = view.image[row]
  np.testing.assert_array_equal(found[: size[0], : size[1]], wanted)
  assert (found[size[0] :] == FILL).all() and (
    found[:, size[1] :] == FILL
  ).all()
  starts = authors_windows(*size, 32)
  assert view.weight[row].sum() == len(starts)
  assert view.weight[row, : len(starts)].all()
  assert view.start[row, : len(starts)].tolist() == [list(x) for x in starts]
  assert (view.start[row].max(0) <= np.array(found.shape[:2]) - 32).all()


def test_padding_rows_are_looked_at_by_no_window():
  last = rows(blocks.Source(), Dense(32, long_side=64, label_size=(80, 80)))[-1]
  for row in (2, 3):
    assert last.views[0].weight[row].sum() == 0
    assert (last.views[0].image[row] == FILL).all()
    assert (last.label[row] == -1).all() and last.size[row].tolist() == [1, 1]


def test_own_size_small_images_and_a_scale():
  photo = load_sample_image("china.jpg")[:40, :50]

  class One(blocks.Source):
    def __getitem__(self, index):
      mask = np.zeros(photo.shape[:2], np.int16)
      return {"image": photo, "label": -1, "id": index, "mask": mask}

  # Without a long side, images keep their size, and small ones get a margin.
  (batch,) = rows(One(length=2), Dense(64), batch_size=2)
  view = batch.views[0]
  assert view.image.shape == (2, 64, 64, 3) and view.start.shape == (2, 1, 2)
  np.testing.assert_array_equal(view.image[1, :40, :50], photo)
  assert (
    view.size.tolist() == [[40, 50]] * 2 and view.weight.tolist() == [[1]] * 2
  )
  assert batch.label.shape == (2, 64, 64)
  dense = Dense(24, eval_size=(40, 50), scales=(0.5, 1.0, 2.0))
  (batch,) = rows(One(length=2), dense, batch_size=2)
  assert [v.size[0].tolist() for v in batch.views] == [[20, 25], [40, 50],
                                                       [80, 100]]  # fmt: skip
  assert batch.views[1].image.shape[1:3] == batch.label.shape[1:] == (40, 50)


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.25, 1.75])
@pytest.mark.parametrize("long_side", [0, 211])
def test_what_fits_at_scale_1_fits_at_every_scale(scale, long_side):
  rng = np.random.default_rng(0)
  for height, width in rng.integers(20, 300, (300, 2)).tolist():
    size = windows.resized((height, width), long_side, 1.0)
    dense = Dense(16, long_side=long_side, eval_size=size)
    assert windows.canvas(dense, 1.0) == tuple(max(n, 16) for n in size)
    space = windows.canvas(dense, scale)
    other = windows.resized((height, width), long_side, scale)
    assert other[0] <= space[0] <= max(math.ceil(scale * size[0]) + 2, 16)
    assert other[1] <= space[1] <= max(math.ceil(scale * size[1]) + 2, 16)


def test_processes_share_rows_and_records_may_be_skipped():
  source = blocks.Source(bad=(2,), skip_corrupt=True)
  dense = Dense(32, long_side=64, label_size=(80, 80))
  told = []
  whole = rows(source, dense, on_skip=told.extend)
  assert told == [2] and whole[0].mask.tolist() == [1, 1, 0, 1]
  parts = [
    rows(source, dense, process_index=index, process_count=2)
    for index in (0, 1)
  ]
  jax.tree.map(
    lambda all_rows, *own: np.testing.assert_array_equal(
      all_rows, np.concatenate(own)
    ),
    whole,
    *parts,
  )
  assert sum(b.mask.sum() for b in rows(source, dense, limit=2)) == 2
  with pytest.raises(ValueError, match="blocks 2: torn"):
    rows(blocks.Source(bad=(2,)), dense)


@pytest.mark.parametrize(
  ("fields", "match"),
  [
    (
      {"long_side": 64, "eval_size": (40, 64)},
      r"record 0: its image, resized, has 48x64 pixels \(height x width\), and "
      r"there is room for 40x64; set --config.preprocess.eval_size=\(48, 64\)",
    ),
    (
      {"long_side": 64},
      r"record 0: its mask has 60x80 .* 64x64; .*label_size=\(60, 80\) or more",
    ),
    ({}, r"record 0: its image, resized, has 60x80 .*eval_size=\(60, 80\)"),
  ],
)
def test_images_that_are_too_large(fields, match):
  with pytest.raises(ValueError, match=match):
    rows(blocks.Source(), Dense(32, **fields))
  with pytest.raises(ValueError, match=match):
    windows.check_room(blocks.Source(), Dense(32, **fields))


def test_every_encoded_image_is_looked_at_before_a_run(monkeypatch):
  shapes = [(30, 32), (32, 32), (33, 20)]

  def record(self, index):
    mask = np.zeros(shapes[index], np.int16)
    return {"image": b"", "label": -1, "id": index, "mask": mask}

  monkeypatch.setattr(blocks.Source, "__getitem__", record)
  monkeypatch.setattr(blocks.Source, "__len__", lambda self: len(shapes))
  windows.check_room(blocks.Source(), Dense(32), limit=2)
  windows.check_room(blocks.Source(), Dense(16, eval_size=(33, 32)))
  with pytest.raises(ValueError, match=r"2: its image.* 33x20"):
    windows.check_room(blocks.Source(), Dense(32))


def test_mistakes():
  with pytest.raises(ValueError, match=r"digits has no masks, .* as pairs"):
    windows.window_batches(digits.Source(), Dense(8), batch_size=4)
  with pytest.raises(ValueError, match="limit=0; it must be at least 1"):
    rows(blocks.Source(), Dense(8), limit=0)
  with pytest.raises(ValueError, match="batch_size=4 does not split over 3"):
    rows(blocks.Source(), Dense(8), process_count=3)
