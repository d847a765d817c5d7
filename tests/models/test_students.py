"""Families of today's students against timm's golden outputs and counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import prints
import pytest
import zoo

from kd_jax import convert, models
from kd_jax.models import fuse
from kd_jax.models.byob import blocks as byob
from kd_jax.models.classic import densenet, hgnet_blocks, vgg
from kd_jax.models.efficientvit import blocks as efficientvit
from kd_jax.models.fastvit import blocks
from kd_jax.models.metaformer import blocks as metaformer
from kd_jax.models.mobile import mbconv, repvit
from kd_jax.types import STAGES

SMALL_V4 = (
  "er_r1_k3_s2_e2_c8",
  "uir_r1_a3_k5_s2_e2_c8",
  "uir_r1_a5_k0_s2_e2_c8 mqa_r1_k3_h2_s1_v2_d4_c8",
  "uir_r1_a0_k3_s2_e2_c8 mqa_r1_k3_h3_s1_d4_c8 cn_r1_k1_s1_c16",
)
# A small member, and the block that repeats.
FAMILIES = {
  "efficientvit": (
    "efficientvit_b0",
    {
      "widths": (8, 8, 8, 16, 16),
      "depths": (1, 2, 1, 1, 1),
      "head_dim": 8,
      "head_widths": (16, 24),
    },
    efficientvit.Local,
  ),
  "vgg": (
    "vgg11",
    {"depths": (1, 1, 1, 2, 1), "widths": (8, 8, 12, 16, 16), "head_width": 16},
    vgg.Neck,
  ),
  "hgnet": (
    "hgnetv2_b0",
    {
      "stem_chs": (8, 12),
      "middle": (8, 8, 8, 8),
      "widths": (8, 16, 24, 32),
      "head_hidden_size": 16,
    },
    hgnet_blocks.Block,
  ),
  "densenet": (
    "densenet121",
    {"growth_rate": 4, "block_config": (1, 2, 1, 1)},
    densenet.Layer,
  ),
  "metaformer": (
    "caformer_s18",
    {"depths": (1, 1, 1, 1), "dims": (8, 8, 32, 32)},
    metaformer.Block,
  ),
  "mobilenetv4": (
    "mobilenetv4_hybrid_medium",
    {
      "arch_def": SMALL_V4,
      "head_width": 16,
      "layer_scale_init_value": 0.5,
    },
    mbconv.Block,
  ),
  "repvit": (
    "repvit_m1_0",
    {"embed_dim": (8, 8, 16, 16), "depth": (1, 1, 2, 1)},
    repvit.Block,
  ),
  "byobnet": (
    "repvgg_a0",
    {
      "blocks": (
        "rep_d2_c8_s2",
        "rep_d2_c8_s2_g2",
        "one_d1_c8_s2_g1_n2 one_d1_c16_k1_se",
        "one_d1_c16_s2_n2 rep_d1_c16 bottle_d1_c16_g4",
      ),
      "stem_chs": 8,
    },
    byob.Block,
  ),
  "fastvit": (
    "fastvit_sa12",
    {
      "layers": (1, 1, 1, 1),
      "embed_dims": (8, 8, 16, 32),
      "layer_scale_init_value": 0.5,
    },
    blocks.Block,
  ),
}
# Later members of families that have tests of their own.
MORE = ("efficientnet", "resnet")
# How many of the stored cases are small; others take seconds to compile.
QUICK = {
  "efficientvit": 1,
  "efficientnet": 0,
  "resnet": 1,
  "vgg": 1,
  "hgnet": 2,
  "densenet": 1,
  "metaformer": 2,
  "byobnet": 1,
  "mobilenetv4": 1,
  "repvit": 2,
  "fastvit": 1,
}
FUSED = ("byobnet", "repvit", "fastvit")
CASES = [
  pytest.param(
    family,
    i,
    id=f"{case[0]}-{i}",
    marks=pytest.mark.slow if i >= QUICK[family] else (),
  )
  for family in (*FAMILIES, *MORE)
  for i, case in enumerate(prints.load(family)[0])
]


@pytest.mark.parametrize(("family", "index"), CASES)
def test_golden_outputs_of_timm(family, index):
  prints.check(family, index, "float64", 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "index"), CASES)
def test_golden_outputs_of_timm_in_float32(family, index):
  prints.check(family, index, "float32", 2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_parameter_counts(family):
  prints.check_counts(family, FAMILIES[family][2])


@pytest.mark.parametrize("family", [*FAMILIES, *MORE])
def test_preprocessing(family):
  prints.check_preprocessing(family)


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request):
  name, fields, _ = FAMILIES[request.param]
  return zoo.Tiny(name, **fields)


@pytest.mark.slow
def test_names(tiny):
  if tiny.name.startswith("vgg"):
    # Its last stage is a pooling.
    assert set(tiny.variables["params"]) == {*STAGES, "neck"} - {"stage4"}
  else:
    tiny.check_names()


@pytest.mark.slow
def test_chained_stages_equal_the_whole(tiny):
  tiny.check_chain()


@pytest.mark.slow
def test_every_parameter_gets_a_gradient(tiny):
  tiny.check_gradients()


@pytest.mark.slow
def test_bfloat16(tiny):
  tiny.check_bfloat16(0.15)


@pytest.mark.parametrize("family", FUSED)
def test_merged_networks_say_the_same(family):
  name, fields, _ = FAMILIES[family]
  tiny = zoo.Tiny(name, **fields)
  model, variables = fuse.merge(tiny.model, tiny.variables)
  taps = jax.jit(model.apply)(variables, tiny.images)
  for tap, want in tiny.taps.items():
    near = 1e-5 * float(np.abs(want).max())
    np.testing.assert_allclose(taps[tap], want, rtol=0, atol=near)
  count = [len(jax.tree.leaves(v)) for v in (variables, tiny.variables)]
  assert count[0] < 0.8 * count[1]
  shapes = zoo.shapes(model)[1]
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)
  back = convert.from_timm(model, convert.to_timm(model, variables))
  jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_nothing_to_merge():
  model = models.create_model("mobilenetv4_conv_small_035")
  with pytest.raises(ValueError, match="no branches to merge"):
    fuse.merge(model, {})
