import numpy as np
import pytest

from kd_jax.data.sources import synthetic


def test_records_are_deterministic_and_differ():
  source = synthetic.Source(size=32, length=20, num_classes=3)
  images = np.stack([record["image"] for record in source])
  assert (images.shape, images.dtype) == ((20, 32, 32, 3), np.uint8)
  assert [record["label"] for record in source] == [i % 3 for i in range(20)]
  assert [record["id"] for record in source] == list(range(20))
  again = synthetic.Source(size=32, length=20, num_classes=3)
  np.testing.assert_array_equal(images[7], again[7]["image"])
  assert len({image.tobytes() for image in images}) == 20
  assert images.std(axis=(1, 2)).min() > 1


def test_class_shows_in_the_frequency():
  source = synthetic.Source(size=64, length=50, num_classes=5)
  for record in source:
    row = record["image"].astype(float).mean(axis=(0, 2))
    peak = np.abs(np.fft.rfft(row - row.mean())).argmax()
    assert peak == record["label"] + 2


def test_settings():
  unlabelled = synthetic.Source(size=8, length=4, num_classes=0)
  assert {record["label"] for record in unlabelled} == {-1}
  assert len({unlabelled, synthetic.Source(size=8)}) == 2
  prints = {synthetic.Source(seed=s, length=n).fingerprint
            for s in (0, 1) for n in (8, 9)}  # fmt: skip
  assert len(prints) == 4
  other = synthetic.Source(size=8, length=4, num_classes=0, seed=1)
  assert (other[0]["image"] != unlabelled[0]["image"]).any()
  with pytest.raises(IndexError):
    unlabelled[4]


@pytest.mark.parametrize("field", ["size", "length", "num_classes", "seed"])
def test_errors(field):
  with pytest.raises(ValueError, match=f"synthetic.{field}=-1; .* at least"):
    synthetic.Source(**{field: -1})
