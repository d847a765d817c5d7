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


def test_a_bad_image_is_skipped_and_a_lost_file_is_not(tmp_path):
  shard_files.write(tmp_path, 20, per_shard=10, per_group=5)
  tars = sorted((tmp_path / "tars").iterdir())
  data = bytearray(tars[0].read_bytes())
  at = data.index(b"\x89PNG", 1000)
  data[at : at + 4] = b"JUNK"
  tars[0].write_bytes(data)
  source = shard_files.both(tmp_path, skip_corrupt=True)[0]
  skipped = []
  batches = take(source, 2, on_skip=skipped.extend)
  assert len(batches) == 2 and skipped in ([], [0], [1])
  every = take(source, 3, on_skip=skipped.extend)
  assert skipped and set(skipped) <= {0, 1} and len(every) == 3
  tars[1].unlink()
  with pytest.raises(ValueError, match="000001.tar: gone since it was listed"):
    take(source, 3)


def test_processes_read_blocks_of_their_own(folder):
  for source in shard_files.both(folder, shuffle_blocks=4):
    ends = np.cumsum(source.blocks())
    read = []
    for index in range(2):
      share = take(
        source, COUNT // IMAGES, process_index=index, process_count=2
      )
      labels = np.concatenate([batch.label for batch in share])
      read.append(set(np.searchsorted(ends, labels, side="right").tolist()))
    # Lanes end inside blocks; such a one is read by two.
    assert len(read[0] & read[1]) <= 2 < len(ends) // 2


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
