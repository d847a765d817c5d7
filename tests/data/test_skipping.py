"""Records that cannot be read: replaced, reported, or an error."""

import dataclasses

import jax
import numpy as np
import pytest

from kd_jax import interfaces
from kd_jax.data import pipeline
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.reading import Reading
from kd_jax.data.sources import digits

SOURCE = digits.Source(split="train[:100]")
PREPROCESS = Preprocess(image_size=12, crop_pct=1.0, augment="shift", shift=2)


def take(count, source, preprocess=PREPROCESS, **options):
  options = {"seed": 5, **options}
  with pipeline.train_batches(source, preprocess, **options) as batches:
    return [next(batches) for _ in range(count)]


def assert_equal(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@dataclasses.dataclass(frozen=True)
class Spoilt(interfaces.DataSource):
  """Digits of which some cannot be read."""

  bad: tuple[int, ...]
  skip_corrupt: bool = True
  num_classes = 10
  fingerprint = "spoilt"

  def __len__(self):
    return 40

  def __getitem__(self, index):
    if index in self.bad:
      raise ValueError(f"digit {index}: torn")
    return SOURCE[index]


def test_unreadable_records_are_skipped_and_reported():
  plain = Preprocess(image_size=8, crop_pct=1.0, augment="none")
  source, seen = Spoilt(bad=(3, 4, 39)), []
  batches = take(2, source=source, preprocess=plain, batch_size=20,
                 on_skip=seen.extend)  # fmt: skip
  assert sorted(seen) == [3, 4, 39]
  found = sorted(i.tobytes() for b in batches for i in b.image)
  kept = [i for i in range(40) if i not in source.bad] + [5, 5, 0]
  assert found == sorted(SOURCE[i]["image"].tobytes() for i in kept)
  for changed in (
    {"reading": Reading(num_threads=2)},
    {"start_step": 1},
  ):
    again = take(1, source=source, preprocess=plain, batch_size=20, **changed)
    assert_equal(again[0], batches[changed.get("start_step", 0)])


def test_unreadable_records_have_no_weight_in_evaluation():
  seen = []
  with pipeline.eval_batches(
    Spoilt(bad=(1,)), PREPROCESS, batch_size=8, limit=6, on_skip=seen.extend
  ) as batches:
    batch = next(batches)
  assert seen == [1]
  assert batch.mask.tolist() == [1, 0, 1, 1, 1, 1, 0, 0]
  assert batch.label[1] == -1 and not batch.image[1].any()


def test_unreadable_records_are_errors_unless_skipped():
  with pytest.raises(ValueError, match="digit 7: torn"):
    take(2, source=Spoilt(bad=(7,), skip_corrupt=False), batch_size=20)
  everything = Spoilt(bad=tuple(range(40)))
  with pytest.raises(ValueError, match="and the 99 after it cannot be read"):
    take(1, source=everything, batch_size=20)
