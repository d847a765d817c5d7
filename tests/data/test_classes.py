import numpy as np
from PIL import Image

from kd_jax.data import classes
from kd_jax.data.sources import digits, folder, synthetic


def test_digits_are_numbered_from_zero_whichever_they_are():
  low = digits.Source("train", classes=(0, 1, 2, 3, 4))
  high = digits.Source("test", classes=(5, 6, 7, 8, 9))
  assert low.class_names == ("0", "1", "2", "3", "4")
  assert {low[i]["label"] for i in range(20)} == set(range(5))
  assert {high[i]["label"] for i in range(20)} == set(range(5))
  assert not classes.comparable(low, high, 5)
  own = digits.Source("test", classes=(0, 1, 2, 3, 4))
  assert classes.comparable(low, own, 5)
  backwards = digits.Source("test", classes=(4, 3, 2, 1, 0))
  assert not classes.comparable(low, backwards, 5)
  assert not classes.comparable(low, digits.Source("test"), 5)


def test_without_labels_only_the_number_is_known():
  hidden = digits.Source("train", labels=False)
  assert hidden.class_names == ()
  assert classes.comparable(hidden, digits.Source("test"), 10)
  assert not classes.comparable(hidden, digits.Source("test"), 1000)
  # Ten outputs learn from a teacher of ten classes, not from these labels.
  low = digits.Source("train", classes=(0, 1, 2, 3, 4))
  assert classes.comparable(low, digits.Source("test"), 10)
  assert not classes.comparable(low, low, 10)
  few = synthetic.Source(num_classes=4)
  assert classes.comparable(few, synthetic.Source(num_classes=4, seed=1), 4)
  assert not classes.comparable(few, synthetic.Source(num_classes=5), 4)


def test_directories_are_classes_by_name(tmp_path):
  for tree, names in {"a": ("cat", "dog"), "b": ("cat", "emu")}.items():
    for name in names:
      (tmp_path / tree / name).mkdir(parents=True)
      pixels = np.zeros((4, 4, 3), np.uint8)
      Image.fromarray(pixels).save(tmp_path / tree / name / "1.png")
  one, other = (folder.Source(str(tmp_path / tree)) for tree in "ab")
  assert classes.comparable(one, folder.Source(str(tmp_path / "a")), 2)
  assert not classes.comparable(one, other, 2)
