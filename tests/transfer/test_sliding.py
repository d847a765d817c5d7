from __future__ import annotations

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from kd_jax.transfer import confusion, windows

CLASSES = 4
KERNEL = np.random.default_rng(9).normal(size=(3, 3, 3, CLASSES)) / 90
KERNEL -= KERNEL.mean((0, 1, 2))
resize = jax.jit(windows.at_label_size, static_argnums=3)


@struct.dataclass
class View:
  image: jax.Array
  start: jax.Array
  weight: jax.Array
  size: jax.Array


@struct.dataclass
class DenseBatch:
  views: tuple[View, ...]
  label: jax.Array
  size: jax.Array
  mask: jax.Array


def network(image):
  """A convolution that knows left from right and sees its window's edge."""
  return jax.lax.conv_general_dilated(
    image.astype(jnp.float32),
    jnp.asarray(KERNEL, jnp.float32),
    (1, 1),
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def softmaxed(window, mirror):
  def said(x):
    logits = np.asarray(network(x[None])[0], np.float64)
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)

  if not mirror:
    return said(window)
  return (said(window) + said(window[:, ::-1])[:, ::-1]) / 2


def slide(image, starts, weights, crop, mirror):
  """What semseg's scale_process does with one image."""
  found = np.zeros((*image.shape[:2], CLASSES))
  count = np.zeros((*image.shape[:2], 1))
  for (top, left), weight in zip(starts, weights, strict=True):
    if weight:
      place = np.s_[top : top + crop[0], left : left + crop[1]]
      found[place] += softmaxed(image[place], mirror)
      count[place] += 1
  return found / np.maximum(count, 1)


def view(rng, sizes, canvas, crop):
  """Images of `sizes` with windows that cover them, the last one missing."""
  image = np.full((len(sizes), *canvas, 3), 124, np.uint8)
  starts = np.zeros((len(sizes), 7, 2), np.int32)
  weight = np.zeros((len(sizes), 7), np.float32)
  for row, (height, width) in enumerate(sizes):
    image[row, :height, :width] = rng.integers(0, 256, (height, width, 3))
    grid = [
      (top, left)
      for top in {0, max(height - crop[0], 0)}
      for left in {0, max(width - crop[1], 0) // 2, max(width - crop[1], 0)}
    ]
    starts[row, : len(grid)], weight[row, : len(grid)] = grid, 1
  return View(image, starts, weight, np.array(sizes, np.int32))


@pytest.mark.parametrize("mirror", [False, True])
def test_one_window_over_the_image_is_the_whole_image(mirror):
  image = np.random.default_rng(0).integers(0, 256, (2, 9, 12, 3), np.uint8)
  size = np.array([(9, 12)] * 2)
  one = View(image, np.zeros((2, 1, 2), int), np.ones((2, 1)), size)
  found = windows.probabilities(network, one, (9, 12), mirror=mirror)
  for row in range(2):
    wanted = softmaxed(image[row], mirror)
    np.testing.assert_allclose(found[row], wanted, atol=1e-6)
  assert np.ptp(found) > 0.5


@pytest.mark.parametrize("mirror", [False, True])
def test_windows_are_averaged_as_in_a_loop(mirror):
  crop = (8, 10)
  given = view(np.random.default_rng(1), [(12, 17), (8, 23)], (13, 23), crop)
  run = functools.partial(windows.probabilities, network, mirror=mirror)
  found = jax.jit(run, static_argnums=1)(given, crop)
  for row in range(2):
    inputs = (given.image[row], given.start[row], given.weight[row])
    wanted = slide(*inputs, crop, mirror)
    np.testing.assert_allclose(found[row], wanted, atol=2e-6)
  assert not found[1, 8:].any() and found[1, :8].min() > 0


def test_an_image_smaller_than_a_window_lies_in_its_middle():
  crop = (11, 10)
  given = view(np.random.default_rng(4), [(6, 17), (14, 5)], (14, 17), crop)
  run = functools.partial(windows.probabilities, network, mirror=True)
  found = jax.jit(run, static_argnums=1)(given, crop)
  borders = (2, 3, 0, 0), (0, 0, 2, 3)
  for row, border in enumerate(borders):
    height, width = given.size[row]
    image = cv2.copyMakeBorder(
      given.image[row, :height, :width],
      *border,
      cv2.BORDER_CONSTANT,
      value=(124, 124, 124),
    )
    inputs = (image, given.start[row], given.weight[row])
    wanted = slide(*inputs, crop, True)[border[0] :, border[2] :]
    np.testing.assert_allclose(
      found[row, :height, :width], wanted[:height, :width], atol=2e-6
    )


@pytest.mark.parametrize("shape", [(7, 9), (14, 18), (13, 31), (40, 29)])
def test_resizing_is_that_of_opencv(shape):
  canvas = np.random.default_rng(2).random((1, 16, 20, CLASSES), np.float32)
  small = np.ascontiguousarray(canvas[0, :14, :18])
  wanted = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_LINEAR)
  found = resize(canvas, np.array([(14, 18)]), np.array([shape]), (42, 33))
  assert found.shape == (1, 42, 33, CLASSES)
  height, width = shape
  np.testing.assert_allclose(found[0, :height, :width], wanted, atol=1e-5)


def test_two_scales_a_padding_row_and_counts():
  rng, crop, sizes = np.random.default_rng(3), (8, 8), [(11, 10), (9, 13)]
  scales = (
    view(rng, [*sizes, (8, 8)], (12, 13), crop),
    view(rng, [(17, 15), (14, 20), (8, 8)], (18, 20), crop),
  )
  label = np.full((3, 12, 14), -1, np.int16)
  for row, (height, width) in enumerate(sizes):
    shape = (height, width)
    label[row, :height, :width] = rng.integers(-1, CLASSES, shape)
  label[2] = 1  # which must not count
  batch = DenseBatch(
    scales, label, np.array([*sizes, (8, 8)]), np.array([1.0, 1, 0])
  )

  @jax.jit
  def run(counts, batch):
    said = windows.predictions(network, batch, crop, mirror=True)
    return said, windows.counted(counts, said, batch)

  said, counts = run(confusion.zero(CLASSES), batch)
  wanted = np.zeros((CLASSES, CLASSES), int)
  for row, (height, width) in enumerate(sizes):
    total = 0
    for scale in scales:
      inputs = (scale.image[row], scale.start[row], scale.weight[row])
      valid = np.s_[: scale.size[row, 0], : scale.size[row, 1]]
      found = slide(*inputs, crop, True)[valid]
      total += cv2.resize(found, (width, height))
    best = total.argmax(-1)
    np.testing.assert_array_equal(said[row, :height, :width], best)
    truth = label[row, :height, :width]
    np.add.at(wanted, (truth[truth >= 0], best[truth >= 0]), 1)
  np.testing.assert_array_equal(confusion.finished(counts), wanted)
  assert (wanted.sum(0) > 0).sum() >= 3
