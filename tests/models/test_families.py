"""Families of today's teachers and students against timm.

What is special to a family stands in a file of its own.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import zoo
from families import FAMILIES, KIN

from kd_jax import convert, models
from kd_jax.models import fuse
from kd_jax.types import STAGES

# Members of families that have tests of their own: cases that are quick.
MORE = {
  "efficientnet": (),
  "resnet": (0,),
  "mixer": (0, 1, 2),
  "eva": (
    "vit_small_plus_patch16_dinov3_qkvb",
    "vit_large_patch16_sapiens2",
    "vit_small_patch16_rope_mixed_ape_224",
    "vit_pe_core_tiny_patch16_384",
  ),
  "vit": ("aimv2_large_patch14_224", "vit_dpwee_patch16_reg1_gap_256"),
}
QUICK = {**{k: v.quick for k, v in FAMILIES.items()}, **MORE}
# Dozens of variants, most of which differ in widths and depths alone.
LARGE = ("byobnet", "efficientnet", "eva", "maxxvit", "resnet", "vit")
FUSED = {k: FAMILIES[k] for k in ("byobnet", "repvit", "fastvit")}
FUSED["ghostnet"] = FAMILIES["ghostnet"]._replace(name="ghostnetv3_050")


def slow_unless(quick, families):
  """Parameters; those that are not quick are slow."""
  return [
    pytest.param(f, marks=() if f in quick else pytest.mark.slow)
    for f in families
  ]


@pytest.mark.parametrize(
  ("family", "index"),
  [case for k, quick in QUICK.items() for case in small.params(k, quick)],
)
def test_golden_outputs_of_timm(family, index):
  small.check(family, index)


@pytest.mark.parametrize(
  ("family", "index"),
  [
    case
    for case in small.params("whole")
    if case.id.startswith(("vit_small_patch16_dinov3", "hiera", "coatnet"))
  ],
)
def test_golden_outputs_of_timm_in_float32(family, index):
  small.check(family, index, "float32")


@pytest.mark.parametrize("family", slow_unless({"sam", "vgg", "repvit"}, QUICK))
def test_counts(family):
  small.check_counts(family, 3 if family in LARGE else 1)


@pytest.mark.parametrize("family", QUICK)
def test_preprocessing(family):
  small.check_preprocessing(family)


@pytest.fixture(
  scope="module",
  params=slow_unless({"hiera", "sam", "vitamin"}, FAMILIES | KIN),
)
def tiny(request):
  family = (FAMILIES | KIN)[request.param]
  return family, family.tiny()


def test_names_and_stages(tiny):
  """Chained stages are the whole."""
  family, member = tiny
  if family.name.startswith("vgg"):
    # Its last stage is a pooling.
    assert set(member.variables["params"]) == {*STAGES, "neck"} - {"stage4"}
  else:
    member.check_names()
  for tap, shape in family.shapes.items():
    assert member.taps[tap].shape == (4, *shape), tap
  member.check_chain()


def test_every_parameter_gets_a_gradient(tiny):
  family, member = tiny
  member.check_gradients(family.invisible)


def test_bfloat16(tiny):
  family, member = tiny
  member.check_bfloat16(family.error)


def test_saved_models_keep_their_options(tiny, tmp_path):
  family, member = tiny
  convert.save_timm(member.model, member.variables, tmp_path, name=family.name)
  model, variables = convert.load_pretrained(family.name, tmp_path)
  assert model == member.model
  jax.tree.map(np.testing.assert_array_equal, variables, member.variables)


@pytest.mark.parametrize(
  "family", slow_unless(FUSED.keys() - {"ghostnet", "fastvit", "repvit"}, FUSED)
)
def test_merged_networks_say_the_same(family):
  tiny = FUSED[family].tiny()
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
