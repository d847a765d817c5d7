"""The sliding windows of the KDEP authors' PSPNet, against their own code.

`psp_golden.sliding()` gives (apply, image, crop, expected): the converted
network as an `Apply` that takes float pixels of 0 to 255 and normalises them,
the (h, w, 3) image, the side of the square windows and the arrays of the file
(`slide_pred`, every k-th probability, and `slide_argmax`).
"""

from __future__ import annotations

import functools
import itertools
import math

import jax
import numpy as np
import psp_golden
from test_sliding import View

from kd_jax.transfer import windows


def starts(length, crop):
  """Windows every 2/3 of a crop; the last one ends at the edge."""
  step = math.ceil(crop * 2 / 3)
  count = math.ceil((length - crop) / step) + 1
  return [min(i * step, length - crop) for i in range(count)]


def test_probabilities_are_those_of_the_authors_code():
  apply, image, crop, expected = psp_golden.sliding()
  height, width = image.shape[:2]
  grid = [*itertools.product(starts(height, crop), starts(width, crop))]
  view = View(
    image[None],
    np.array([grid], np.int32),
    np.ones((1, len(grid)), np.float32),
    np.array([(height, width)], np.int32),
  )
  run = functools.partial(windows.probabilities, apply, mirror=True)
  found = np.asarray(jax.jit(run, static_argnums=1)(view, (crop, crop)))[0]
  every = max(1, found.size // 6000) | 1
  wanted = expected["slide_pred"]
  np.testing.assert_allclose(found.reshape(-1)[::every], wanted, atol=1e-4)
  second, best = np.sort(found, -1)[..., -2:].transpose(2, 0, 1)
  clear = best - second > 1e-4
  same = found.argmax(-1) == expected["slide_argmax"]
  assert clear.mean() > 0.99 and same[clear].all()
