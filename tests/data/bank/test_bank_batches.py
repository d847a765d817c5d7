"""Batches from a bank: every row has what was said about its very crop."""

import dataclasses
import itertools

import numpy as np
import pytest

from kd_jax import interfaces
from kd_jax.data import pipeline
from kd_jax.data.bank import Bank, Header, Writer
from kd_jax.data.preprocess import Preprocess

SEED, RECORDS, CROPS, PASSES = 7, 24, 4, 2
WRITTEN = Preprocess(image_size=8, num_crops=CROPS)


@dataclasses.dataclass(frozen=True)
class Source(interfaces.DataSource):
  """Noise; the label is the record's own number."""

  height: int = 20
  num_classes: int = RECORDS
  fingerprint: str = "noise"

  def __len__(self):
    return RECORDS

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    image = rng.integers(0, 256, (self.height, 15, 3), np.uint8)
    return {"image": image, "label": index, "id": index}


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
  """Of every crop its number, pass x 1000 + record x 10 + crop, and mean."""
  place = str(tmp_path_factory.mktemp("batches"))
  arrays = {
    "geometry": ((7,), "int16"),
    "number": ((), "int16"),
    "mean": ((), "float32"),
  }
  about = {"seed": SEED}
  header = Header(RECORDS, CROPS, 16, arrays, about)
  writer = Writer(place, header, {})
  for number, shard in itertools.product(range(PASSES), range(2)):
    rows = header.rows(shard)
    parts = list(
      pipeline.pass_batches(
        Source(), WRITTEN, rows, number=number, batch_size=20, seed=SEED
      )
    )
    assert [len(p["image"]) for p in parts] == [20] * -(-len(rows) // 5)
    geometry = np.concatenate([p["geometry"] for p in parts])[: len(rows)]
    mean = np.concatenate([p["image"].mean((1, 2, 3)) for p in parts])
    mean = np.float32(mean.reshape(-1, CROPS)[: len(rows)])
    names = 1000 * number + 10 * np.array(rows)[:, None] + np.arange(CROPS)
    found = {"geometry": geometry.astype(np.int16), "mean": mean}
    writer.write(number, shard, {**found, "number": names.astype(np.int16)})
  return Bank(place)


def batches(bank, views, start=0, *, source=Source(), seed=1, **parts):  # noqa: B008
  return pipeline.train_batches(
    source,
    views,
    batch_size=12 * views.num_crops,
    seed=seed,
    start_step=start,
    bank=bank,
    **parts,
  )


@pytest.mark.parametrize("crops", [1, 2, 4])
def test_rows_get_what_was_stored_of_their_own_crop(bank, crops):
  views = dataclasses.replace(WRITTEN, num_crops=crops)
  seen = []
  with batches(bank, views) as stream:
    for step in range(2 * CROPS * PASSES // crops + 2):
      batch = next(stream)
      number = batch.teacher["number"]
      epoch, crop = step // 2, np.tile(np.arange(crops), 12)
      first = epoch * crops % (CROPS * PASSES)
      want = 1000 * (first // CROPS) + 10 * batch.label + first % CROPS + crop
      np.testing.assert_array_equal(number, want)
      mean = np.float32(batch.image.mean((1, 2, 3)))
      np.testing.assert_array_equal(batch.teacher["mean"], mean)
      seen.extend(number)
  # All that is stored, once; then the first again.
  count = RECORDS * CROPS * PASSES
  assert len(set(seen[:count])) == count
  assert set(seen[count:]) <= set(seen[: RECORDS * crops])


def test_larger_or_sharper_views_keep_their_crops(bank):
  changes = {"image_size": 16, "train_interpolation": "bicubic"}
  with batches(bank, WRITTEN) as small:
    one = next(small)
  with batches(bank, dataclasses.replace(WRITTEN, **changes)) as large:
    two = next(large)
  assert two.image.shape == (48, 16, 16, 3)
  for name, values in one.teacher.items():
    np.testing.assert_array_equal(two.teacher[name], values)
  apart = two.image.mean((1, 2, 3)) - one.teacher["mean"]
  assert 0 < np.abs(apart).max() < 20 < np.ptp(one.teacher["mean"])


def test_starting_late_and_sharing_out_change_nothing(bank):
  views = dataclasses.replace(WRITTEN, num_crops=2)
  with batches(bank, views) as stream:
    whole = next(itertools.islice(stream, 3, None))
  parts = []
  for index in range(2):
    share = {"process_index": index, "process_count": 2}
    with batches(bank, views, 3, **share) as stream:
      parts.append(next(stream))
  for name, values in whole.teacher.items():
    got = np.concatenate([part.teacher[name] for part in parts])
    np.testing.assert_array_equal(got, values)


def test_other_images_under_the_same_name_are_refused(bank):
  message = "written with other images: record .* in this batch.* another size"
  with (
    batches(bank, WRITTEN, source=Source(height=21)) as stream,
    pytest.raises(ValueError, match=message),
  ):
    next(stream)
  flipped = dataclasses.replace(WRITTEN, hflip=1.0)
  with (
    batches(bank, flipped) as stream,
    pytest.raises(ValueError, match="other crops. Write a bank for these"),
  ):
    next(stream)
