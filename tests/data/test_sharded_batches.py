"""Batches of tars and tables: of processes, from a step on, by workers."""

import numpy as np
import pytest

import shard_files
from kd_jax.data import pipeline
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.reading import Reading

COUNT, IMAGES = 60, 8
VIEWS = Preprocess(8, augment="shift", shift=1, crop_pct=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  place = tmp_path_factory.mktemp("sharded")
  shard_files.write(place, COUNT, per_shard=7, per_group=5)
  return place


def take(source, steps, **fields):
  with pipeline.train_batches(
    source, VIEWS, batch_size=IMAGES, seed=3, **fields
  ) as batches:
    return [next(batches) for _ in range(steps)]


@pytest.mark.parametrize("mixed", [0, 4])
@pytest.mark.parametrize("number", [0, 1], ids=["tars", "tables"])
def test_processes_share_and_runs_go_on(folder, number, mixed):
  source = shard_files.both(folder, shuffle_blocks=mixed)[number]
  whole = take(source, 2 * COUNT // IMAGES)
  labels = np.concatenate([batch.label for batch in whole])
  for first in (0, COUNT):
    epoch = labels[first : first + COUNT]
    assert sorted(epoch) == list(range(COUNT)) and list(epoch) != sorted(epoch)
  # Far on, and in the middle of an epoch.
  for batch, again in zip(
    whole[9:12], take(source, 3, start_step=9), strict=True
  ):
    np.testing.assert_array_equal(batch.image, again.image)
  for count in (2, 4):
    shares = [
      take(source, 8, process_index=i, process_count=count)
      for i in range(count)
    ]
    for batch, *parts in zip(whole[:8], *shares, strict=True):
      theirs = np.concatenate([part.label for part in parts])
      assert sorted(theirs) == sorted(batch.label)
      images = np.concatenate([part.image for part in parts])
      order = np.argsort(theirs)
      np.testing.assert_array_equal(
        images[order], batch.image[np.argsort(batch.label)]
      )


def test_few_blocks_are_held(folder):
  for source in shard_files.both(folder, shuffle_blocks=4):
    take(source, 20, reading=Reading(num_threads=0))
    assert 0 < len(source._held) <= 2 * 4 + 2


@pytest.mark.slow
@pytest.mark.parametrize("mixed", [0, 4])
def test_worker_processes_change_nothing(folder, mixed):
  for source in shard_files.both(folder, shuffle_blocks=mixed):
    alone = take(source, 12, reading=Reading(num_threads=0))
    workers = take(source, 12, reading=Reading(num_workers=2))
    for one, other in zip(alone, workers, strict=True):
      np.testing.assert_array_equal(one.image, other.image)
