import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kd_jax.data.sources import digits


def _images(source):
  return np.stack([source[i]["image"] for i in range(len(source))])


def _labels(source):
  return np.array([source[i]["label"] for i in range(len(source))])


def _rows(images):
  return [row.tobytes() for row in images]


def test_every_real_digit_once_with_its_label():
  images, labels = load_digits(return_X_y=True)
  expected = np.rint(images.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
  source = digits.Source()
  assert (len(source), source.num_classes) == (1797, 10)
  found = _images(source)
  assert (found.dtype, found.shape) == (np.uint8, (1797, 8, 8, 3))
  assert (found == found[..., :1]).all()
  pairs = zip(_rows(found[..., 0]), _labels(source), strict=True)
  truth = zip(_rows(expected), labels, strict=True)
  assert sorted(pairs) == sorted(truth)
  assert (found.min(), found.max()) == (0, 255)


def test_train_and_test_are_disjoint_and_complete():
  train, test = digits.Source(split="train"), digits.Source(split="test")
  assert (len(train), len(test)) == (1437, 360)
  assert np.bincount(_labels(test)).tolist() == [36] * 10
  everything = _rows(_images(train)) + _rows(_images(test))
  assert sorted(everything) == sorted(_rows(_images(digits.Source())))


@pytest.mark.parametrize("split", ["train[:500]", "test[:100]", "train[:50%]"])
def test_prefixes_are_balanced(split):
  counts = np.bincount(_labels(digits.Source(split=split)), minlength=10)
  assert counts.max() - counts.min() <= 1


def test_slices_are_parts_of_the_whole():
  whole = _images(digits.Source(split="train"))
  np.testing.assert_array_equal(
    _images(digits.Source(split="train[500:600]")), whole[500:600]
  )


def test_permutation_is_fixed():
  # These digits would change with the permutation; checkpoints rely on it.
  assert digits.Source(split="train").fingerprint == "d0fd6b413f53b4c8"
  assert _labels(digits.Source(split="test[:12]")).tolist() == [
    *range(10),
    0,
    1,
  ]


def test_hidden_labels():
  source = digits.Source(split="test", labels=False)
  assert source.num_classes == 0
  assert set(_labels(source)) == {-1}
  assert source.fingerprint == digits.Source(split="test").fingerprint
  assert source.fingerprint != digits.Source(split="test[1:]").fingerprint


def test_hash_pickle_ids_and_bounds():
  source = digits.Source(split="test")
  again = pickle.loads(pickle.dumps(source))
  assert again == source
  assert hash(again) == hash(source)
  assert [source[i]["id"] for i in (0, 359, -1)] == [0, 359, 359]
  assert source.describe(7) == "digits[test] record 7"
  with pytest.raises(IndexError):
    source[360]


def test_errors():
  with pytest.raises(ValueError, match=r"has \['all', 'test', 'train'\]"):
    digits.Source(split="validation")


def test_some_classes_are_numbered_in_their_order():
  some = digits.Source(split="train[:20]", classes=(7, 5))
  both = digits.Source(split="train", classes=(7, 5))
  assert (len(some), some.num_classes) == (20, 2)
  assert np.bincount(_labels(some)).tolist() == [10, 10]
  whole = digits.Source(split="train")
  sevens = _images(whole)[_labels(whole) == 7]
  np.testing.assert_array_equal(_images(both)[_labels(both) == 0], sevens)
  assert _labels(digits.Source(classes=(7, 5), labels=False)).max() == -1


@pytest.mark.parametrize("classes", [(1, 1), (10,), (-1, 2)])
def test_classes_must_be_different_digits(classes):
  with pytest.raises(ValueError, match="different digits 0 to 9"):
    digits.Source(classes=classes)
