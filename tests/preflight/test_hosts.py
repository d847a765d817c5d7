"""What one core reads, on images that are here and on one that is made."""

import pytest

from kd_jax.data import stand_in
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.sources import synthetic
from kd_jax.preflight import hosts

VIEWS = Preprocess(image_size=32)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(hosts, "_SECONDS", 0.05)


def test_images_that_are_here():
  found = hosts.measure(synthetic.Source(size=40, length=20), VIEWS)
  assert found.what == "the run's own images" and found.images_per_core > 10
  assert found.bytes_per_image == 0  # pixels, nothing to read


@pytest.mark.parametrize("length", [0, 1_281_167])
def test_images_that_are_not(length):
  found = hosts.measure(stand_in.StandIn("", length, 0), VIEWS)
  assert "generated JPEG of 500 x 375 pixels" in found.what
  assert 20_000 < found.bytes_per_image < 200_000
  assert 1 < found.images_per_core < 20_000
  # Eight crops of one decoded image take longer than one.
  many = hosts.measure(
    stand_in.StandIn("", length, 0), Preprocess(image_size=224, num_crops=8)
  )
  assert many.images_per_core < found.images_per_core


@pytest.mark.parametrize(
  ("fields", "length", "classes"),
  [
    ({"split": "train"}, 1_281_167, 1000),
    ({"split": "train", "per_class": 128}, 128_000, 1000),
    ({"split": "train[:10%]", "labels": False}, 128_117, 0),
    ({"split": "train+validation", "percent": 50.0}, 665_584, 1000),
    ({"dataset": "imagenet2012:5.1.0", "split": "validation"}, 50_000, 1000),
    ({"dataset": "mine", "split": "train"}, 0, 7),
  ],
)
def test_what_is_known_of_data_sets(fields, length, classes):
  known = {"name": "tfds", "dataset": "imagenet2012", **fields}
  found = stand_in.of(known, 7)
  assert (len(found), found.num_classes) == (length, classes)
  again = stand_in.of(dict(reversed(known.items())), 7)
  assert found == again != stand_in.of({**known, "seed": 1}, 7)
