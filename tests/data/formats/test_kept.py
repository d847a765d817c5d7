"""Decoded images that stay in memory change nothing but the time."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from kd_jax.data import examples, pipeline
from kd_jax.data.formats.kept import Kept
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.reading import Reading
from kd_jax.data.sources import folder

COUNT, SIDE = 12, 40


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
  where = tmp_path_factory.mktemp("kept")
  photo = load_sample_images().images[0]
  for i in range(COUNT):
    cut = photo[10 * i : 10 * i + SIDE, 20 * i : 20 * i + SIDE]
    Image.fromarray(cut).save(where / f"{i:02}.jpg")
  return folder.Source(str(where))


def batches(source, reading, steps=6, start=0):
  views = Preprocess(24)
  fields = {"batch_size": 4, "seed": 3, "start_step": start}
  with pipeline.train_batches(
    source, views, reading=reading, **fields
  ) as stream:
    return [next(stream).image for _ in range(steps)]


def test_batches_are_the_same_and_images_are_decoded_once(
  photographs, monkeypatch
):
  decode, seen = examples.decode, []

  def counted(data, name, **fields):
    seen.append(name)
    return decode(data, name, **fields)

  monkeypatch.setattr(examples, "decode", counted)
  want = batches(photographs, Reading(num_threads=0))
  often = len(seen)
  seen.clear()
  one = Reading(num_threads=0, keep_gib=0.1)
  got = batches(photographs, one)
  np.testing.assert_array_equal(got, want)
  assert len(set(seen)) == len(seen) == COUNT < often
  # Threads share what is kept; a run goes on anywhere.
  later = batches(photographs, Reading(keep_gib=0.1), steps=3, start=3)
  np.testing.assert_array_equal(later, want[3:])


def test_no_more_is_kept_than_fits(photographs):
  kept = Kept(limit=2 * SIDE * SIDE * 3 + 1)
  decoded = examples.Decoded(photographs, kept)
  plain = examples.Decoded(photographs)
  for _ in range(2):
    for row in range(COUNT):
      image = decoded.read(row)["image"]
      np.testing.assert_array_equal(image, plain.read(row)["image"])
  assert len(kept) == 2
  assert kept.get(1) is not None and kept.get(2) is None
  with pytest.raises(ValueError, match="read-only"):
    decoded.read(0)["image"][:] = 0


def test_processes_do_not_share():
  with pytest.raises(
    ValueError, match=r"keep_gib=2 and input.workers=1: every"
  ):
    Reading(num_workers=1, keep_gib=2.0)
  with pytest.raises(ValueError, match="keep_gib=-1"):
    Reading(keep_gib=-1.0)
