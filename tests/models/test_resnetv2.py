"""BiT: pre-activation, group normalisation, standardised weights."""

from __future__ import annotations

import convzoo
import counts
import numpy as np
import pytest
import zoo

from kd_jax import models
from kd_jax.models.resnet import resnetv2

# Of timm 1.0.31.
PARAMS = {
  "resnetv2_50x1_bit": 25_549_352,
  "resnetv2_50x3_bit": 217_319_080,
  "resnetv2_101x1_bit": 44_541_480,
  "resnetv2_101x3_bit": 387_934_888,
  "resnetv2_152x2_bit": 236_335_208,
  "resnetv2_152x4_bit": 936_533_224,
}
SMALL = {
  "layers": [1, 1, 1, 1],
  "channels": [32, 32, 64, 32],
  "stem_chs": 8,
  "num_groups": 4,
}


@pytest.mark.parametrize(
  "case",
  [
    pytest.param("resnetv2_50x1_bit", marks=pytest.mark.slow),
    pytest.param("resnetv2_50x1_bit__odd", marks=pytest.mark.slow),
  ],
)
def test_golden(case):
  zoo.check_golden(case, zoo.CONV_FIELDS, lambda taps: taps["final"])


@pytest.mark.parametrize("index, name", convzoo.option_cases("resnetv2"))
def test_options_match_timm_in_float64(index, name):
  convzoo.check_options(index)


def test_counts():
  counts.check("resnetv2", PARAMS)


def test_preprocessing():
  zoo.check_preprocessing("resnetv2")


def test_small_member():
  tiny = zoo.Tiny("resnetv2_50x1_bit", **SMALL, drop_path_rate=0.1)
  tiny.check_names()
  tiny.check_chain()
  tiny.check_gradients()
  tiny.check_bfloat16(0.03)
  assert float(tiny.taps["feature"].min()) < 0 <= tiny.taps["pooled"].min()


def test_standardised_filters_ignore_shift_and_scale():
  x = np.random.default_rng(0).normal(size=(1, 5, 5, 3)).astype(np.float32)
  conv = resnetv2.StdConv(4, 3)
  kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 4))
  y, other = (
    conv.apply({"params": {"kernel": np.float32(k)}}, x)
    for k in (kernel, 7 * kernel + 2)
  )
  np.testing.assert_allclose(y, other, rtol=1e-4, atol=1e-4)
  flat = kernel.reshape(27, 4)
  flat = (flat - flat.mean(0)) / flat.std(0)
  np.testing.assert_allclose(
    y[0, 2, 2], x[0, 1:4, 1:4].reshape(27) @ flat, rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"num_groups": 48}, "num_groups=48 does not divide all of the widths"),
    ({"num_groups": 0}, "num_groups is 0; it must be > 0"),
    ({"width_factor": -1}, "width_factor is -1; it must be > 0"),
    ({"layers": [3, 4]}, "layers is .* 4 positive integers"),
    ({"channels": [3, 4]}, "channels is .* 4 positive integers"),
  ],
)
def test_wrong_options(fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model("resnetv2_50x1_bit", **fields)
