"""Images with objects on their canvases."""

import jax
import numpy as np
import pytest

from kd_jax import interfaces
from kd_jax.data import order as order_lib
from kd_jax.data import pipeline
from kd_jax.data.detection import Detection, scaled
from kd_jax.data.detection_batches import eval_batches
from kd_jax.data.sources.scenes import Source as Scenes

SMALL = {
  "short": (40, 48, 56, 64),
  "long": 96,
  "test_short": 48,
  "test_long": 80,
  "buckets": 2,
  "divisor": 8,
  "max_objects": 3,
}


class Marked(interfaces.DataSource):
  """Black images of several sizes with a white rectangle, its only object."""

  num_classes, fingerprint = 0, "0123456789abcdef"
  box_names = ("rectangle",)

  def __init__(self, count=24, sizes=((60, 80), (80, 60), (50, 50), (30, 90))):
    self.shapes = [sizes[i % len(sizes)] for i in range(count)]

  def __len__(self):
    return len(self.shapes)

  def sizes(self):
    return np.array(self.shapes, np.int64)

  def objects(self, index):
    height, width = self.shapes[index]
    box = np.array([[width // 4, height // 5, width // 2, height // 2]])
    return {
      "size": (height, width),
      "boxes": box.astype(np.float32),
      "classes": np.zeros(1, np.int32),
      "ignored": np.zeros(1, bool),
      "area": np.ones(1, np.float32),
      "masks": self._drawn(index)[None] > 0,
    }

  def _drawn(self, index):
    height, width = self.shapes[index]
    drawn = np.zeros((height, width), np.uint8)
    drawn[height // 5 : height // 2, width // 4 : width // 2] = 255
    return drawn

  def __getitem__(self, index):
    image = np.repeat(self._drawn(index)[..., None], 3, 2)
    return {"image": image, "label": -1, "id": index, **self.objects(index)}


def batches(views, count=1, **more):
  fields = {"batch_size": 4, "seed": 3, **more}
  with pipeline.train_batches(Marked(), views, **fields) as stream:
    return [next(stream) for _ in range(count)]


def extent(image):
  """(x0, y0, x1, y1) of the white part, to a fraction of a pixel."""
  light = image[..., 0].astype(float) / 255
  found = []
  for axis in (0, 1):
    profile = light.max(axis)
    rows = np.flatnonzero(profile > 0.5)
    found.append((rows[0], rows[-1] + 1))
  (x0, x1), (y0, y1) = found
  return np.array([x0, y0, x1, y1])


FILL = {"fill": (0, 0, 0)}


@pytest.mark.parametrize(
  "more",
  [{}, {"hflip": 1.0}, {"short": (64,), "buckets": 1, "jitter": (0.7, 1.8)}],
)
def test_boxes_lie_on_what_they_are_of(more):
  views = Detection(**{**SMALL, **FILL, "hflip": 0.0, **more})
  seen = 0
  for batch in batches(views, 6):
    for image, box, known, size in zip(
      batch.image,
      batch.label.boxes,
      batch.label.classes,
      batch.label.size,
      strict=True,
    ):
      if known[0] < 0:
        continue
      seen += 1
      np.testing.assert_allclose(extent(image), box[0], atol=1.01)
      assert (box[0, 2:] <= size[::-1]).all()
      assert not image[size[0] :].any() and not image[:, size[1] :].any()
  assert seen > 10


def test_a_mirrored_image_has_its_boxes_mirrored():
  plain, turned = (
    batches(Detection(**SMALL, hflip=p))[0].label for p in (0.0, 1.0)
  )
  width = plain.size[:, None, 1]
  np.testing.assert_allclose(
    turned.boxes[:, :1, [2, 0]], width[..., None] - plain.boxes[:, :1, [0, 2]]
  )
  assert not np.allclose(turned.boxes, plain.boxes)


def stretched(grid, box, size):
  """A mask on the canvas: its grid over its box, the nearest place of it."""
  x0, y0, x1, y1 = np.rint(box).astype(int)
  ys, xs = np.mgrid[y0:y1, x0:x1] + 0.5
  across = ((xs - box[0]) / (box[2] - box[0]) * len(grid)).astype(int)
  down = ((ys - box[1]) / (box[3] - box[1]) * len(grid)).astype(int)
  last = len(grid) - 1
  found = np.zeros(size, bool)
  found[y0:y1, x0:x1] = grid[np.clip(down, 0, last), np.clip(across, 0, last)]
  return found


class Corners(Marked):
  """The rectangle lacks its upper right quarter."""

  def _drawn(self, index):
    drawn, (height, width) = super()._drawn(index), self.shapes[index]
    drawn[: 7 * height // 20, 3 * width // 8 :] = 0
    return drawn


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize(
  "more", [{}, {"short": (64,), "buckets": 1, "jitter": (0.7, 3.0)}]
)
def test_masks_lie_on_what_they_are_of(more, flip):
  fields = {**SMALL, **FILL, "hflip": flip, "masks": True, "mask_size": 56}
  views = Detection(**{**fields, **more})
  overlaps, cut = [], 0
  with pipeline.train_batches(Corners(), views, batch_size=4, seed=1) as stream:
    found = [next(stream) for _ in range(8)]
  for batch in found:
    label = batch.label
    for image, mask, box, known, size in zip(
      batch.image,
      label.masks[:, 0],
      label.frames[:, 0],
      label.classes[:, 0],
      label.size,
      strict=True,
    ):
      # A strip of a few pixels says little.
      if known < 0 or min(box[2:] - box[:2]) < 6:
        continue
      got, want = stretched(mask, box, image.shape[:2]), image[..., 0] > 127
      overlaps.append((got & want).sum() / (got | want).sum())
      cut += bool((box[:2] == 0).any() or (box[2:] == size[::-1]).any())
  assert len(overlaps) > 20 and min(overlaps) > 0.8
  assert np.mean(overlaps) > 0.92 and bool(cut) == bool(more)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_masks_are_cut_to_their_boxes(flip):
  """A grid that is stretched over its box gives the digit on the canvas."""
  source = Scenes(size=48, length=16, digits=(1, 3), min_size=0.3, max_size=0.6)
  views = Detection(
    short=(96,),
    long=96,
    test_short=96,
    test_long=96,
    buckets=1,
    masks=True,
    mask_size=56,
    hflip=flip,
    max_objects=3,
  )
  with pipeline.train_batches(source, views, batch_size=8, seed=0) as stream:
    label = next(stream).label
    rows = pipeline.shuffled(source, 0, 8)[:8]
  overlaps = []
  for row, masks, boxes in zip(rows, label.masks, label.frames, strict=True):
    for want, grid, box in zip(
      source[row]["masks"], masks, boxes, strict=False
    ):
      large = np.kron(want, np.ones((2, 2), bool))
      large = large[:, ::-1] if flip else large
      got = stretched(grid, box, large.shape)
      overlaps.append((got & large).sum() / (got | large).sum())
  assert len(overlaps) > 8 and min(overlaps) > 0.9


def test_few_canvases_and_one_per_batch():
  views = Detection(**SMALL)
  found = [batch.image.shape[1:3] for batch in batches(views, 200)]
  listed = {s for c in views.canvases() for s in (c, c[::-1])}
  assert set(found) == listed and len(listed) == 4
  said = views.described()["training_canvases"].split(", ")
  assert {tuple(map(int, each.split("x"))) for each in said} == listed
  # Every group of shorter sides has its share; the orientation that of images.
  small = np.mean([min(size) == 48 for size in found])
  assert 0.35 < small < 0.65
  assert 0.5 < np.mean([h <= w for h, w in found]) < 0.85


def test_every_image_comes_in_an_epoch():
  turned = np.array([s[0] > s[1] for s in Marked().shapes])
  order = order_lib.GroupOrder(turned, images=4, seed=1)
  assert len(order) == 20 + 8
  for epoch in range(3):
    rows = [order(epoch * 28 + i) for i in range(28)]
    assert set(rows) == set(range(24))
    assert all(len(set(turned[rows[i : i + 4]])) == 1 for i in range(0, 28, 4))
  assert [order(i) for i in range(28)] != [order(28 + i) for i in range(28)]


def test_a_resumed_stream_and_two_processes_read_the_same():
  views = Detection(**SMALL, masks=True, mask_size=14)
  whole = batches(views, 5)
  later = batches(views, 2, start_step=3)
  halves = [
    batches(views, 5, process_index=i, process_count=2) for i in range(2)
  ]
  for a, b in zip(whole[3:], later, strict=True):
    jax.tree.map(np.testing.assert_array_equal, a, b)
  for i, a in enumerate(whole):
    parts = [half[i] for half in halves]
    both = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    jax.tree.map(np.testing.assert_array_equal, a, both)
  assert whole[0].label.masks.shape == (4, 3, 14, 14)
  assert whole[0].label.masks.any()


def test_shapes_are_those_that_were_announced():
  views = Detection(**SMALL, masks=True, mask_size=14)
  specs = views.label_specs(4)
  label = batches(views)[0].label
  jax.tree.map(
    lambda s, x: (s.shape, s.dtype) == (x.shape, x.dtype), specs, label
  )
  flat = zip(jax.tree.leaves(specs), jax.tree.leaves(label), strict=True)
  assert all((s.shape, s.dtype) == (x.shape, x.dtype) for s, x in flat)
  assert views.canvas_size == (64, 96)


def test_a_pass_has_every_image_once_and_says_where_it_lies():
  source, views = Marked(count=23), Detection(**SMALL, **FILL)
  seen = {}
  with eval_batches(source, views, batch_size=4) as stream:
    for batch in stream:
      assert batch.image.shape[1:3] in {(48, 80), (80, 48)}
      for row, index in enumerate(batch.index):
        if index >= 0:
          seen[int(index)] = batch.image[row], batch.scale[row]
  assert sorted(seen) == list(range(23))
  for index, (image, scale) in seen.items():
    box = source.objects(index)["boxes"][0] * np.tile(scale, 2)
    np.testing.assert_allclose(extent(image), box, atol=1.01)


def test_shares_of_processes_make_a_whole_pass():
  source, views = Marked(count=9), Detection(**SMALL)

  def read(index, count):
    with eval_batches(
      source, views, batch_size=4, process_index=index, process_count=count
    ) as stream:
      return [batch.index for batch in stream]

  whole, halves = read(0, 1), [read(i, 2) for i in range(2)]
  both = [np.concatenate(pair) for pair in zip(*halves, strict=True)]
  np.testing.assert_array_equal(both, whole)


def test_longer_sides_are_bounded():
  assert scaled((480, 640), 800, 1333) == (800, 1067)
  assert scaled((333, 1000), 800, 1333) == (444, 1333)
  assert scaled((640, 480), 800, 1333) == (1067, 800)


def test_more_objects_than_room():
  source = Scenes(size=64, length=8, digits=(3, 3), min_size=0.2, max_size=0.3)
  fields = {**SMALL, "short": (64,), "long": 64, "buckets": 1, "hflip": 0.0}
  record = next(
    r for r in (source[i] for i in range(8)) if len(r["boxes"]) == 3
  )

  def draw(_):
    return np.random.default_rng(0)

  with pytest.raises(
    ValueError, match="3 objects and there is room for 2.*max_"
  ):
    Detection(**{**fields, "max_objects": 2}).train(record, draw)
  views = Detection(**{**fields, "max_objects": 2, "too_many": "drop"})
  kept = views.train(record, draw)["label"].boxes[0]
  areas = np.prod(record["boxes"][:, 2:] - record["boxes"][:, :2], -1)
  smallest = record["boxes"][np.argmin(areas)]
  assert not (kept == smallest).all(-1).any()
  np.testing.assert_allclose(
    kept, np.delete(record["boxes"], areas.argmin(), 0)
  )


def test_boxes_of_a_small_visible_side_are_not_learnt():
  known = [
    (batches(Detection(**SMALL, min_side=side), 6), side) for side in (0, 12)
  ]
  (every, _), (some, least) = known
  counts = [sum((b.label.classes >= 0).sum() for b in x) for x in (every, some)]
  assert 0 < counts[1] < counts[0]
  for batch in some:
    sides = batch.label.boxes[..., 2:] - batch.label.boxes[..., :2]
    assert (sides[batch.label.classes >= 0] >= least).all()


@pytest.mark.parametrize(
  "fields, match",
  [
    ({"short": ()}, "short.*one whole number"),
    ({"long": 60}, "at least the largest of short, 64"),
    ({"buckets": 5}, "number of preprocess.short"),
    ({"jitter": (0.5, 2.0)}, "single side"),
    ({"too_many": "some"}, "'error' or 'drop'"),
    ({"max_objects": 0}, "at least 1"),
  ],
)
def test_fields_that_cannot_be_are_named(fields, match):
  with pytest.raises(ValueError, match=match):
    Detection(**{**SMALL, **fields})
