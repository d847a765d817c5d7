"""RegNetX and RegNetY."""

from __future__ import annotations

import re

import convzoo
import counts
import numpy as np
import pytest
import zoo

from kd_jax import convert, models

# Of timm 1.0.31.
PARAMS = {
  "regnetx_002": 2_684_792,
  "regnetx_004": 5_157_512,
  "regnetx_004_tv": 5_495_976,
  "regnetx_006": 6_196_040,
  "regnetx_008": 7_259_656,
  "regnetx_016": 9_190_136,
  "regnetx_032": 15_296_552,
  "regnetx_040": 22_118_248,
  "regnetx_064": 26_209_256,
  "regnetx_080": 39_572_648,
  "regnetx_120": 46_106_056,
  "regnetx_160": 54_278_536,
  "regnetx_320": 107_811_560,
  "regnety_002": 3_162_996,
  "regnety_004": 4_344_144,
  "regnety_006": 6_055_160,
  "regnety_008": 6_263_168,
  "regnety_008_tv": 6_432_512,
  "regnety_016": 11_202_430,
  "regnety_032": 19_436_338,
  "regnety_040": 20_646_656,
  "regnety_064": 30_583_252,
  "regnety_080": 39_180_068,
  "regnety_080_tv": 39_381_472,
  "regnety_120": 51_822_544,
  "regnety_160": 83_590_140,
  "regnety_320": 145_046_770,
  "regnety_640": 281_378_786,
  "regnety_1280": 644_812_894,
  "regnety_2560": 1_282_601_138,
}
# Widths 16, 32, 32 and 64, in one to four groups.
SMALL = {"depth": 4, "w0": 16, "wa": 9.6, "wm": 1.5, "group_size": 16}


@pytest.fixture(scope="module")
def tiny():
  return zoo.Tiny("regnety_016", **SMALL, stem_width=8, drop_path_rate=0.1)


@pytest.mark.slow
def test_golden():
  fields = zoo.CONV_FIELDS
  zoo.check_golden("regnety_016", fields, lambda taps: taps["stage4"])


@pytest.mark.parametrize("index, name", convzoo.option_cases("regnet"))
def test_options_match_timm_in_float64(index, name):
  convzoo.check_options(index)


@pytest.mark.slow
def test_counts():
  counts.check("regnet", PARAMS)


def test_preprocessing():
  zoo.check_preprocessing("regnet")


def test_small_member(tiny):
  tiny.check_names()
  tiny.check_chain()
  tiny.check_gradients()
  tiny.check_bfloat16(0.03)
  assert float(tiny.taps["feature"].min()) < 0 <= tiny.taps["pooled"].min()


# Inside a block; torchvision and VISSL agree but for the shortcut.
BLOCK = (
  (r"conv1\.conv\.", "f.a.0."),
  (r"conv1\.bn\.", "f.a.1."),
  (r"conv2\.conv\.", "f.b.0."),
  (r"conv2\.bn\.", "f.b.1."),
)
TORCHVISION = (
  (r"^stem\.conv\.", "stem.0."),
  (r"^stem\.bn\.", "stem.1."),
  (r"^s(\d)\.b(\d)\.", r"trunk_output.block\1.block\1-\2."),
  *BLOCK,
  (r"\.se\.fc(\d)\.", r".f.se.fc\1."),
  (r"conv3\.conv\.", "f.c.0."),
  (r"conv3\.bn\.", "f.c.1."),
  (r"downsample\.conv\.", "proj.0."),
  (r"downsample\.bn\.", "proj.1."),
  (r"^head\.fc\.", "fc."),
)
VISSL = (
  (r"^stem\.conv\.", "_feature_blocks.conv1.stem.0."),
  (r"^stem\.bn\.", "_feature_blocks.conv1.stem.1."),
  (r"^s(\d)\.b(\d)\.", r"_feature_blocks.res\1.block\1-\2."),
  *BLOCK,
  (r"\.se\.fc1\.", ".f.se.excitation.0."),
  (r"\.se\.fc2\.", ".f.se.excitation.2."),
  (r"conv3\.conv\.", "f.c."),
  (r"conv3\.bn\.", "f.final_bn."),
  (r"downsample\.conv\.", "proj."),
  (r"downsample\.bn\.", "bn."),
  (r"^head\.fc\.", "0.clf.0."),
)


@pytest.mark.parametrize("names", [TORCHVISION, VISSL], ids=["tv", "vissl"])
def test_foreign_names(tiny, names):
  theirs = convert.to_timm(tiny.model, tiny.variables)
  old = {}
  for name, value in theirs.items():
    for pattern, new in names:
      name = re.sub(pattern, new, name)
    # Blocks count from 0 there.
    name = re.sub(r"block(\d)-1\.", r"block\1-0.", name)
    old[name] = value
  assert not set(old) & set(theirs)
  old["0.projection_head.weight"] = np.ones(3, np.float32)
  back = convert.to_timm(tiny.model, convert.from_timm(tiny.model, old))
  for name, value in theirs.items():
    np.testing.assert_array_equal(back[name], value, err_msg=name)


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"w0": 12}, "w0=12, .* w0 must be a multiple of 8"),
    ({"wm": 1.0}, "wm above 1"),
    ({"depth": 2}, "make 1 widths; there are 4 stages"),
    ({"depth": 0}, "depth is 0; it must be > 0"),
    ({"se_ratio": 1.5}, r"se_ratio is 1.5, not in \[0, 1\]"),
  ],
)
def test_wrong_options(fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model("regnety_016", **fields)
