"""ResNet with squeeze-excite, deep stems and averaging shortcuts."""

from __future__ import annotations

import convzoo
import counts
import numpy as np
import pytest
import zoo

from kd_jax import models

# Of timm 1.0.31.
PARAMS = {
  "ecaresnet101d": 44_568_563,
  "ecaresnet200d": 64_693_400,
  "ecaresnet269d": 102_093_077,
  "ecaresnet26t": 16_011_916,
  "ecaresnet50d": 25_576_350,
  "ecaresnet50t": 25_573_814,
  "ecaresnetlight": 30_162_046,
  "ecaresnext26t_32x4d": 15_406_220,
  "ecaresnext50t_32x4d": 25_045_686,
  "resnetaa101d": 44_568_392,
  "resnetaa34d": 21_816_904,
  "resnetaa50": 25_557_032,
  "resnetaa50d": 25_576_264,
  "resnetblur101d": 44_568_392,
  "resnetblur18": 11_689_512,
  "resnetblur50": 25_557_032,
  "resnetblur50d": 25_576_264,
  "seresnetaa50d": 28_107_256,
  "seresnextaa101d_32x8d": 93_588_280,
  "seresnextaa201d_32x8d": 149_394_904,
  "resnet10t": 5_435_488,
  "resnet14t": 10_081_632,
  "resnet18": 11_689_512,
  "resnet18d": 11_708_744,
  "resnet26": 15_995_176,
  "resnet26d": 16_014_408,
  "resnet26t": 16_011_872,
  "resnet34": 21_797_672,
  "resnet34d": 21_816_904,
  "resnet50": 25_557_032,
  "resnet50c": 25_576_264,
  "resnet50d": 25_576_264,
  "resnet50s": 25_680_808,
  "resnet50t": 25_573_728,
  "resnet101": 44_549_160,
  "resnet101c": 44_568_392,
  "resnet101d": 44_568_392,
  "resnet101s": 44_672_936,
  "resnet152": 60_192_808,
  "resnet152c": 60_212_040,
  "resnet152d": 60_212_040,
  "resnet152s": 60_316_584,
  "resnet200": 64_673_832,
  "resnet200d": 64_693_064,
  "wide_resnet50_2": 68_883_240,
  "wide_resnet101_2": 126_886_696,
  "resnext50_32x4d": 25_028_904,
  "resnext50d_32x4d": 25_048_136,
  "resnext101_32x4d": 44_177_704,
  "resnext101_32x8d": 88_791_336,
  "resnext101_32x16d": 194_026_792,
  "resnext101_32x32d": 468_530_472,
  "resnext101_64x4d": 83_455_272,
  "seresnet18": 11_779_624,
  "seresnet34": 21_960_416,
  "seresnet50": 28_088_024,
  "seresnet50t": 28_104_720,
  "seresnet101": 49_326_872,
  "seresnet152": 66_821_848,
  "seresnet152d": 66_841_080,
  "seresnet200d": 71_855_096,
  "seresnet269d": 113_672_760,
  "seresnext26d_32x4d": 16_809_512,
  "seresnext26t_32x4d": 16_806_976,
  "seresnext50_32x4d": 27_559_896,
  "seresnext101_32x4d": 48_955_416,
  "seresnext101_32x8d": 93_569_048,
  "seresnext101_64x4d": 88_232_984,
  "seresnext101d_32x8d": 93_588_280,
  "resnetrs50": 35_691_912,
  "resnetrs101": 63_618_696,
  "resnetrs152": 86_621_576,
  "resnetrs200": 93_209_992,
  "resnetrs270": 129_861_448,
  "resnetrs350": 163_956_168,
  "resnetrs420": 191_891_656,
}
SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 8], "stem_width": 8}


def test_golden():
  fields = {**zoo.CONV_FIELDS, "preact_pooled": "feature"}
  zoo.check_golden("seresnext50_32x4d", fields, lambda taps: taps["stage4"])


@pytest.mark.parametrize("index, name", convzoo.option_cases("resnet"))
def test_options_match_timm_in_float64(index, name):
  convzoo.check_options(index)


@pytest.mark.slow
def test_counts():
  counts.check("resnet", PARAMS)


def test_preprocessing():
  zoo.check_preprocessing("resnet")


def test_small_member():
  tiny = zoo.Tiny(
    "seresnext26d_32x4d",
    **SMALL,
    cardinality=2,
    base_width=32,
    replace_stem_pool=True,
    drop_path_rate=0.1,
  )
  tiny.check_names()
  tiny.check_chain()
  tiny.check_gradients()
  tiny.check_bfloat16(0.03)
  assert float(tiny.taps["feature"].min()) < 0 <= tiny.taps["pooled"].min()
  after = np.maximum(tiny.taps["feature_map"], 0)
  np.testing.assert_array_equal(after, tiny.taps["stage4"])


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"stem_type": "deeper"}, r"stem_type is 'deeper'; allowed: \[''"),
    (
      {"block": "bottleneck", "channels": [8, 8, 8, 8], "base_width": 4},
      "base_width=4 leave no channels of 8",
    ),
    ({"se_ratio": 2}, r"se_ratio is 2, not in \[0, 1\]"),
    ({"stem_type": "deep_tiered", "stem_width": 3}, "stem_width is 3; stem"),
    (
      {"stem_type": "cifar", "replace_stem_pool": True},
      "replace_stem_pool=True has no effect",
    ),
  ],
)
def test_wrong_options(fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model("resnet18", **fields)
