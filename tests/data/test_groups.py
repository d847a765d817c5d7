"""Batches of one orientation: epochs, positions, and what is skipped."""

import dataclasses

import numpy as np
import pytest

from kd_jax import interfaces
from kd_jax.data import examples, pipeline
from kd_jax.data.detection import Detection
from kd_jax.data.detection_batches import eval_batches
from kd_jax.data.order import GroupOrder
from kd_jax.data.preprocess import Preprocess

KINDS = np.array([0, 1, 0, 0, 2, 1, 0, 0, 1, 0, 0])
VIEWS = Detection(
  (24, 40), long=64, test_short=24, test_long=40, buckets=2, divisor=8
)


@dataclasses.dataclass(frozen=True)
class Sized(interfaces.DataSource):
  """Gray images of these sizes, over and over, with a box in each."""

  shapes: tuple = ((60, 80), (70, 50), (40, 40))
  length: int = 10
  bad: tuple = ()
  skip_corrupt: bool = True
  exif_rotation: bool = False
  wrong: int = -1
  same: bool = False
  num_classes = 0
  fingerprint = "sized"
  box_names = ("square",)

  def __len__(self):
    return self.length

  def _shape(self, index):
    return self.shapes[index % len(self.shapes)]

  def __getitem__(self, index):
    if index in self.bad:
      raise ValueError(f"record {index}: torn")
    image = np.full((*self._shape(index), 3), index, np.uint8)
    return {"image": image, "label": -1, "id": index, **self.objects(index)}

  def objects(self, index):
    height, width = self._shape(index)
    return {
      "size": (height, width + (index == self.wrong)),
      "boxes": np.array([[1, 2, 30, 31]], np.float32),
      "classes": np.zeros(1, np.int32),
      "ignored": np.zeros(1, bool),
      "area": np.array([29 * 29], np.float32),
    }

  def sizes(self):
    if self.same:
      return None
    return np.array([self._shape(i) for i in range(self.length)], np.int64)


@pytest.mark.parametrize("images", [1, 2, 3, 4])
def test_every_record_once_and_batches_of_one_kind(images):
  order = GroupOrder(KINDS, images=images, seed=3)
  rows = len(order)
  assert rows == sum(-(-size // images) * images for size in (7, 3, 1))
  epochs = np.array([order(i) for i in range(5 * rows)]).reshape(5, rows)
  for found in epochs:
    batches = KINDS[found].reshape(-1, images)
    assert (batches == batches[:, :1]).all()
    counts = np.bincount(found, minlength=len(KINDS))
    assert counts.min() == 1 and (counts - 1).sum() == rows - len(KINDS)
  if images == 4:  # what fills up is spread over the records
    assert counts[KINDS == 0].max() == 2 and counts[4] == 4
  assert len({tuple(found) for found in epochs}) == 5
  again = GroupOrder(KINDS, images=images, seed=3)
  assert again(4 * rows + 5) == epochs[4, 5]  # nothing is remembered
  other = GroupOrder(KINDS, images=images, seed=4)
  assert [other(i) for i in range(rows)] != epochs[0].tolist()


def test_an_epoch_is_as_long_as_its_order():
  source = Sized()  # 7 landscape or square, 3 portrait
  order = pipeline.shuffled(source, 5, 4, oriented=True)
  assert len(order) == 12 and {order[i] for i in range(12)} == set(range(10))
  assert len(pipeline.shuffled(source, 5, 4)) == 10
  where = pipeline.position(7, 4, source=source, seed=5, oriented=True)
  assert (where["records"], where["epoch"], where["index"]) == (28, 2, 4)
  fetch = examples.Train(examples.Decoded(source), VIEWS, 5, images=4, rows=12)
  found = [int(fetch(i, 0)["place"][0]) for i in (0, 11, 12, 23, 24)]
  assert found == [0, 0, 1, 1, 2]


def test_a_replacement_has_the_orientation_of_the_skipped():
  source, told = Sized(bad=(1, 3)), []
  with pipeline.train_batches(
    source, VIEWS, batch_size=3, seed=0, on_skip=told.extend
  ) as batches:
    found = [next(batches) for _ in range(30)]
  assert set(told) == {1, 3}
  for batch in found:
    tall = batch.label.size[:, 0] > batch.label.size[:, 1]
    assert tall.all() or not tall.any()
  assert examples.Decoded(source).next_readable(1)[0]["id"] == 4
  assert examples.Decoded(source).next_readable(3)[0]["id"] == 5
  # Others find the next record of all.
  with pipeline.train_batches(
    Sized(bad=(1,), same=True), Preprocess(8), batch_size=2, seed=0
  ) as batches:
    next(batches)


def test_tall_images_of_one_size():
  source = Sized(shapes=((70, 50),), length=5, same=True)
  with eval_batches(source, VIEWS, batch_size=4) as batches:
    found = list(batches)
  assert [b.index.tolist() for b in found] == [[0, 1, 2, 3], [4, -1, -1, -1]]
  assert {b.image.shape for b in found} == {(4, 40, 24, 3)}


def test_boxes_of_another_image():
  match = "record 1: its boxes are of 70x51 pixels, the image 70x50 .*upright"
  with pytest.raises(ValueError, match=match):
    examples.Decoded(Sized(wrong=1))[1]
  with pytest.raises(ValueError, match="turn images but not their masks and b"):
    examples.Decoded(Sized(exif_rotation=True))


def test_a_pass_tells_of_skipped_records_and_knows_its_limit():
  told = []
  with eval_batches(
    Sized(bad=(4,)), VIEWS, batch_size=4, on_skip=told.extend
  ) as batches:
    found = list(batches)
  assert told == [4]
  assert [b.index.tolist() for b in found] == [
    [0, 2, 3, 5], [6, 8, 9, -1], [1, -1, 7, -1],
  ]  # fmt: skip
  assert found[2].size[1].tolist() == [1, 1]
  with eval_batches(Sized(), VIEWS, batch_size=4, limit=2) as batches:
    few = [batch.index.tolist() for batch in batches]
  assert few == [[0, -1, -1, -1], [1, -1, -1, -1]]
  with pytest.raises(ValueError, match="limit=0; it must be at least 1"):
    eval_batches(Sized(), VIEWS, batch_size=4, limit=0)
  with pytest.raises(ValueError, match="batch_size=4 does not split over 3"):
    eval_batches(Sized(), VIEWS, batch_size=4, process_count=3)
