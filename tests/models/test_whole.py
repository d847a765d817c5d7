"""Whole networks against timm, in float32."""

import goldens as gw
import pytest
import zoo

NAMES = [facts["case"][0] for facts, _ in gw.small("whole")]
QUICK = {"vit_small_patch16_dinov3"}


@pytest.mark.parametrize(
  "index",
  [
    pytest.param(i, marks=() if name in QUICK else pytest.mark.slow, id=name)
    for i, name in enumerate(NAMES)
  ],
)
def test_whole_networks_match_timm(index):
  zoo.check_small("whole", index, "float32")
