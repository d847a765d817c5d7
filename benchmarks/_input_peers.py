"""What others do, for `benchmarks.input`: PIL, and TensorFlow's tf.image."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from kd_jax.data.augment import crops
from kd_jax.interfaces import DataSource

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


class Case(NamedTuple):
  """Something to time.

  Attributes:
    views: what one call makes.
    run: called with 0, 1, 2, ...
  """

  views: int
  run: Callable[[int], Any]


def by_pil(source: DataSource, size: int) -> Case:
  """PIL, with torchvision's RandomResizedCrop and flip."""

  def run(i: int) -> np.ndarray:
    rng = np.random.default_rng(i)
    data = io.BytesIO(source[i % len(source)]["image"])
    image = Image.open(data).convert("RGB")
    y, x, h, w = crops.random_box(
      image.height, image.width, rng, scale=SCALE, ratio=RATIO
    )
    image = image.crop((x, y, x + w, y + h))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)

  return Case(1, run)


def by_tensorflow(source: DataSource, size: int) -> Case:
  """tf.data with tf.image, on one thread, from memory, in batches of 32."""
  import tensorflow as tf

  tf.config.threading.set_intra_op_parallelism_threads(1)
  tf.config.threading.set_inter_op_parallelism_threads(1)

  def view(data: Any) -> Any:
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
      tf.image.extract_jpeg_shape(data),
      tf.zeros((1, 0, 4)),
      aspect_ratio_range=RATIO,
      area_range=SCALE,
      max_attempts=10,
      min_object_covered=0.0,
      use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat((begin[:2], extent[:2]), 0)
    image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
    image = tf.image.resize(image, (size, size))
    image = tf.image.random_flip_left_right(image)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

  encoded = [source[i]["image"] for i in range(len(source))]
  data = tf.data.Dataset.from_tensor_slices(encoded).repeat().map(view)
  options = tf.data.Options()
  options.threading.private_threadpool_size = 1
  batches = data.batch(32).with_options(options).as_numpy_iterator()
  return Case(32, lambda _: next(batches))
