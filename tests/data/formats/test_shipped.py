import pathlib
import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets

from kd_jax.data.formats import shipped


def test_what_is_read_is_what_scikit_learn_reads():
  rows, labels = shipped.digits()
  theirs = datasets.load_digits(return_X_y=True)
  np.testing.assert_array_equal(rows, theirs[0])
  np.testing.assert_array_equal(labels, theirs[1])
  photos = datasets.load_sample_images()
  names = [pathlib.Path(path).stem for path in photos.filenames]
  assert names == [*shipped.PHOTOGRAPHS]
  for name, image in zip(shipped.PHOTOGRAPHS, photos.images, strict=True):
    np.testing.assert_array_equal(shipped.photograph(name), image)


def test_it_is_not_imported():
  code = (
    "import sys; from kd_jax.data.sources import digits, scene_parts; "
    "assert len(digits.Source()) == 1797 and scene_parts.photographs(); "
    "assert 'sklearn' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_that_is_not_there():
  with pytest.raises(ValueError, match=r"ship images/moon.jpg, and .* is not"):
    shipped.photograph("moon")
