"""What a visit to a record draws; banks and old runs rely on it."""

import dataclasses

import blocks
import grain
import jax
import numpy as np
import pytest

from kd_jax.data import examples
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.reading import stacked
from kd_jax.data.sources import digits
from kd_jax.types import Objects

VIEWS = Preprocess(image_size=8, num_crops=2, scale=(0.2, 0.9))


@pytest.mark.parametrize(("seed", "epoch", "index"), [(3, 1, 5), (1, 3, 5)])
def test_a_crop_is_drawn_from_seed_epoch_record_and_number(seed, epoch, index):
  source = digits.Source("test")
  found = examples.Train(examples.Decoded(source), VIEWS, seed).visit(
    epoch, index
  )

  def rng(crop):
    counter = [0, 0, crop, index]
    key = [seed, epoch]
    return np.random.Generator(np.random.Philox(key=key, counter=counter))

  wanted = VIEWS.train(source[index], rng)
  np.testing.assert_array_equal(found["image"], wanted["image"])
  assert found["image"].shape == (2, 8, 8, 3) and np.ptp(found["image"]) > 0
  assert (found["image"][0] != found["image"][1]).any()


def test_a_mask_has_the_size_of_its_image():
  @dataclasses.dataclass(frozen=True)
  class Cut(blocks.Source):
    def __getitem__(self, index):
      record = super().__getitem__(index)
      return {**record, "mask": record["mask"][:-1]}

  assert examples.Decoded(blocks.Source())[0]["mask"].shape == (60, 80)
  match = r"record 1: its mask has 69x50 pixels, the image 70x50 \(height x"
  with pytest.raises(ValueError, match=match):
    examples.Decoded(Cut())[1]


def test_examples_are_stacked_as_by_grain():
  examples = [
    {
      "image": np.full((1, 2), i, np.uint8),
      "label": np.int32(i),
      "views": {"96": np.full(3, i, np.float32)},
      # A tree that is no mapping, as detection has.
      "objects": Objects(*(np.full(2, i + k / 2) for k in range(5))),
    }
    for i in range(1, 4)
  ]
  found, grains = stacked(examples), grain.MapDataset.source(examples).batch(3)
  assert found["label"].tolist() == [1, 2, 3]
  assert jax.tree.structure(found) == jax.tree.structure(grains[0])
  for ours, own in zip(*map(jax.tree.leaves, (found, grains[0])), strict=True):
    np.testing.assert_array_equal(ours, own)
    assert (ours.dtype, ours.shape) == (own.dtype, own.shape)
