"""The device's crops against PIL's, on photographs."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sklearn.datasets import load_sample_image

from kd_jax.data.augment import canvas, crops

SIDE, SIZE = 160, 48
# Top, left, height, width, on the china canvas of 107 x 160 pixels: the whole
# image, corners and edges, enlarged, of the right size, a pixel, a panorama,
# much higher than wide (two of them), and one that is whole but for an edge.
BOXES = [
  (0, 0, 107, 160),
  (0, 0, 60, 70),
  (47, 90, 60, 70),
  (10, 20, 20, 30),
  (30, 31, 48, 48),
  (106, 159, 1, 1),
  (50, 0, 9, 160),
  (0, 70, 107, 20),
  (5, 70, 90, 60),
  (0, 1, 106, 159),
  (13, 17, 71, 83),
  (20, 9, 48, 77),
]


def photographs():
  """Canvases of the two photographs in turns, one per box."""
  drawn = []
  for name in ("china.jpg", "flower.jpg"):
    image = crops.resize(
      load_sample_image(name), 107, 160, interpolation="bicubic"
    )
    drawn.append(canvas.to_canvas(image, SIDE)[0])
  return np.stack([drawn[i % 2] for i in range(len(BOXES))])


def by_pil(images, boxes, flips, interpolation):
  """What the host would have done."""
  views = []
  for image, box, flip in zip(images, boxes, flips, strict=True):
    view = crops.crop(image, crops.Box(*box))
    view = crops.resize(view, SIZE, SIZE, interpolation=interpolation)
    views.append(view[:, ::-1] if flip else view)
  return np.stack(views)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_equal_pils(interpolation):
  images = photographs()
  # Nothing outside of the image may show.
  images[:, 107:] = 255
  boxes = np.array(BOXES, np.float32)
  flips = np.arange(len(BOXES)) % 3 == 0
  for flip in (flips, ~flips):
    found = np.asarray(
      canvas.crop_resize(
        images, boxes, flip, size=SIZE, interpolation=interpolation
      )
    )
    assert found.dtype == np.float32
    expected = by_pil(images, BOXES, flip, interpolation)
    apart = np.abs(found - expected)
    assert apart.max() <= {"bilinear": 0, "bicubic": 1}[interpolation]
    assert apart.mean() < 1e-4
    assert expected.std() > 30


def test_many_random_boxes_equal_pils():
  rng = np.random.default_rng(0)
  images = photographs()
  for _ in range(4):
    boxes = [
      crops.random_box(107, 160, rng, scale=(0.02, 1), ratio=(0.5, 2))
      for _ in BOXES
    ]
    flips = rng.random(len(BOXES)) < 0.5
    found = canvas.crop_resize(
      images,
      np.array(boxes, np.float32),
      flips,
      size=SIZE,
      interpolation="bilinear",
    )
    expected = by_pil(images, boxes, flips, "bilinear")
    np.testing.assert_array_equal(found, expected)


def test_batches_are_sharded():
  devices = jax.devices()
  images, boxes = photographs(), np.array(BOXES, np.float32)
  flips = np.zeros(len(BOXES), bool)
  mesh = Mesh(np.array(devices), ("n",))
  rows = NamedSharding(mesh, PartitionSpec("n"))
  arguments = jax.device_put((images, boxes, flips), rows)
  found = canvas.crop_resize(*arguments, size=SIZE, interpolation="bilinear")
  assert found.sharding.is_equivalent_to(rows, found.ndim)
  expected = by_pil(images, BOXES, flips, "bilinear")
  np.testing.assert_array_equal(found, expected)


def test_small_images_are_put_into_the_corner():
  image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
  found, size = canvas.to_canvas(image, 8)
  assert found.shape == (8, 8, 3) and found.dtype == np.uint8
  assert size == (5, 7)
  np.testing.assert_array_equal(found[:5, :7], image)
  assert not found[5:].any() and not found[:, 7:].any()
  same, size = canvas.to_canvas(image[:, :5], 5)
  assert size == (5, 5)
  np.testing.assert_array_equal(same, image[:, :5])


@pytest.mark.parametrize(
  ("shape", "size"),
  [((300, 200), (32, 21)), ((20, 64), (10, 32)), ((2, 300), (1, 32))],
)
def test_large_images_shrink_to_fit(shape, size):
  ramp = np.linspace(0, 255, shape[1]).round().astype(np.uint8)
  image = np.broadcast_to(ramp[None, :, None], (*shape, 3))
  found, inside = canvas.to_canvas(image, 32)
  assert inside == size and all(isinstance(x, int) for x in inside)
  assert not found[size[0] :].any() and not found[:, size[1] :].any()
  expected = (np.arange(size[1]) + 0.5) * 255 / size[1]
  row = found[0, : size[1], 0]
  np.testing.assert_allclose(row[1:-1], expected[1:-1], atol=2)


def test_bad_arguments():
  images, boxes = np.zeros((2, 8, 8, 3), np.uint8), np.ones((2, 4), np.float32)
  flips = np.zeros(2, bool)
  with pytest.raises(ValueError, match="'area'; on the device it must be one"):
    canvas.crop_resize(images, boxes, flips, size=4, interpolation="area")
  with pytest.raises(ValueError, match=r"shapes \(\(2, 8, 8, 3\), \(1, 4\)"):
    canvas.crop_resize(
      images, boxes[:1], flips, size=4, interpolation="bilinear"
    )
  with pytest.raises(ValueError, match="side=0; it must be at least 1"):
    canvas.to_canvas(images[0], 0)


def test_workers_need_no_backend():
  code = (
    "from kd_jax.data import pipeline; "
    "from kd_jax.data.augment import canvas; "
    "from jax._src import xla_bridge; "
    "assert not xla_bridge.backends_are_initialized()"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
