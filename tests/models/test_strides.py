"""Strides, dilations and drop rates of the convolutional families."""

from __future__ import annotations

import numpy as np
import pytest
import zoo
from flax import linen as nn

from kd_jax import models
from kd_jax.models.blocks import layers, strides

ONES = [1, 2, 1, 1]


def test_steps():
  assert strides.steps(32, 4) == [(1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1)]
  assert strides.steps(8, 4) == [(1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4)]
  steps = strides.steps(16, 2, (2, 2, 2, 2))
  assert steps == [(2, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)]


def test_divisible():
  assert [strides.divisible(w) for w in (3, 12, 80, 19, 83)] == [
    8,
    16,
    80,
    24,
    80,
  ]
  assert strides.divisible(19.0, keep=0.0) == 16


def test_average_down():
  x = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
  assert strides.average_down(x, 1, 1) is x
  halved = strides.average_down(x, 2, 1)[0, ..., 0]
  np.testing.assert_allclose(halved, [[2, 3.5], [6.5, 8]])
  dilated = strides.average_down(x, 1, 2)[0, ..., 0]
  np.testing.assert_allclose(
    dilated, [[2, 3, 1.75], [5, 6, 3.25], [3.25, 3.75, 2]]
  )


@pytest.mark.parametrize(
  "name, fields",
  [
    ("seresnet18", {"layers": ONES}),
    ("resnet50_clip_gap", {"layers": ONES}),
    ("resnetv2_50x1_bit", {"layers": ONES}),
    ("regnety_002", {"depth": 5, "w0": 16, "wa": 8.0, "wm": 1.5}),
    ("convnext_atto", {"depths": ONES}),
  ],
)
def test_drop_path_rates_are_those_of_timm(name, fields):
  rates = []

  def note(call, args, kwargs, context):
    if isinstance(context.module, layers.DropPath):
      rates.append(context.module.rate)
    return call(*args, **kwargs)

  with nn.intercept_methods(note):
    zoo.shapes(models.create_model(name, drop_path_rate=0.4, **fields))
  np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4])
