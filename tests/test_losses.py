"""Values and gradients of the losses, against the original KDEP code."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kd_jax import losses

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "kdep_losses.npz"))
# float32 goldens of torch: a few roundings of a value, and of the largest
# entry of a gradient.
VALUE_RTOL = 2e-6
GRAD_RTOL = 2e-6

PAIRS = {
  "mse": losses.mse,
  "mse_l2norm": losses.mse_l2norm,
  "mse_exp_T16": functools.partial(losses.mse_exp, temperature=16.0),
  "mse_softmax_T4_sum": functools.partial(losses.sse_softmax, temperature=4.0),
  "mse_align": losses.mse_sign_aligned,
  "angle": losses.angle,
  "rkd_d25_a50": losses.rkd,
  "rkd_dist_only": functools.partial(
    losses.rkd, distance_weight=1.0, angle_weight=0.0
  ),
  "rkd_angle_only": functools.partial(
    losses.rkd, distance_weight=0.0, angle_weight=1.0
  ),
  "total_w3": lambda s, t: 3.0 * losses.mse(s, t),
  "total_w20": lambda s, t: 20.0 * losses.mse(s, t),
}


@functools.cache
def value_and_grad(name):
  return jax.jit(jax.value_and_grad(PAIRS[name]))


def assert_golden(name, value, grad, suffix=""):
  if value is not None:
    np.testing.assert_allclose(value, GOLDEN[f"{name}_value"], rtol=VALUE_RTOL)
  expected = GOLDEN[f"{name}_grad{suffix}"]
  assert np.abs(expected).max() > 0
  scale = np.abs(expected).max()
  np.testing.assert_allclose(grad, expected, rtol=0, atol=GRAD_RTOL * scale)


@pytest.mark.parametrize("name", PAIRS)
def test_features_match_original(name):
  value, grad = value_and_grad(name)(GOLDEN["feat_s"], GOLDEN["feat_t"])
  assert_golden(name, value, grad)


def test_distill_kl_matches_original():
  value, grad = jax.value_and_grad(losses.distill_kl)(
    GOLDEN["logit_s"], GOLDEN["logit_t"], 4.0
  )
  assert_golden("distill_kl_T4", value, grad)


def test_distill_kl_masked_matches_original():
  def loss(student):
    return losses.distill_kl_masked(
      student,
      GOLDEN["logit_t"],
      GOLDEN["logit_ent"],
      temperature=4.0,
      threshold=0.7,
    )

  value, grad = jax.value_and_grad(loss)(GOLDEN["logit_s"])
  assert_golden("distill_kl_mask_T4_thr0p7_C10", value, grad)
  keep = losses.confident(GOLDEN["logit_ent"], 0.7)
  np.testing.assert_array_equal(keep, GOLDEN["distill_kl_mask_keep"])


def test_total_matches_original():
  def loss(logits, feature):
    return (
      losses.distill_kl(logits, GOLDEN["logit_t"], 4.0)
      + 3.0 * losses.mse(feature, GOLDEN["feat_t"])
      + 0.5 * losses.cross_entropy(logits, GOLDEN["labels"].astype(np.int32))
    )

  value, grads = jax.value_and_grad(loss, argnums=(0, 1))(
    GOLDEN["logit_s"], GOLDEN["feat_s"]
  )
  assert_golden("total_a1_w3_c0p5", value, grads[0], "0")
  assert_golden("total_a1_w3_c0p5", value, grads[1], "1")


def test_pairwise_distance_matches_original():
  got = losses.pairwise_distance(GOLDEN["feat_s"])
  np.testing.assert_allclose(got, GOLDEN["rkd_pdist_s"], rtol=2e-6)


def fsp_maps(side):
  return [GOLDEN[f"fsp_{side}{i}"].transpose(0, 2, 3, 1) for i in range(4)]


def test_fsp_matches_original():
  teacher = fsp_maps("t")

  @jax.jit
  def pullback(student):
    value, vjp = jax.vjp(lambda s: losses.fsp(s, teacher), student)
    return value, vjp(jnp.ones_like(value))[0]

  value, grads = pullback(fsp_maps("s"))
  np.testing.assert_allclose(value, GOLDEN["fsp_value"], rtol=5e-6)
  for i, grad in enumerate(grads):
    assert_golden("fsp", None, grad.transpose(0, 3, 1, 2), str(i))


def test_fsp_matrix_matches_original():
  maps = fsp_maps("s")
  for i in range(3):
    got = losses.fsp_matrix(maps[i], maps[i + 1])
    expected = GOLDEN[f"fsp_matrix_s{i}"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_adaptive_mean_of_uneven_windows():
  x = np.arange(5.0, dtype=np.float32).reshape(1, 5, 1, 1)
  got = losses.adaptive_mean(x, (3, 1))
  # Windows [0, 2), [1, 4), [3, 5).
  np.testing.assert_allclose(np.ravel(got), [0.5, 2.0, 3.5], rtol=1e-6)


def test_relative_error():
  target = np.array([[3.0, 4.0]], np.float32)
  student = np.array([[3.0, 5.0]], np.float32)
  np.testing.assert_allclose(
    losses.relative_error(student, target), 1 / 25, rtol=1e-6
  )
  np.testing.assert_allclose(
    losses.relative_error(0 * target, target), 1.0, rtol=1e-6
  )


def test_cross_entropy_skips_rows_without_label():
  logits = GOLDEN["logit_s"]
  labels = GOLDEN["labels"].astype(np.int32)
  expected = losses.cross_entropy(logits[:5], labels[:5])
  partial = np.where(np.arange(8) < 5, labels, -1)
  np.testing.assert_allclose(
    losses.cross_entropy(logits, partial),
    expected,
    rtol=1e-5,  # sums of 8 rows and of 5, in float32
  )
  assert expected > 0.1
  assert losses.cross_entropy(logits, np.full(8, -1)) == 0


def test_distill_kl_against_numpy():
  p, q = (
    np.exp(x - np.log(np.exp(x).sum(1, keepdims=True)))
    for x in (GOLDEN["logit_t"] / 2, GOLDEN["logit_s"] / 2)
  )
  expected = 4 * (p * np.log(p / q)).sum(1).mean()
  got = losses.distill_kl(GOLDEN["logit_s"], GOLDEN["logit_t"], 2.0)
  np.testing.assert_allclose(got, expected, rtol=1e-5)


SMOOTH = PAIRS | {
  "relative_error": losses.relative_error,
  "kl": lambda s, t: losses.distill_kl(s, t, 3.0),
  "ce": lambda s, t: losses.cross_entropy(s * t, np.arange(4) % 3),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_in_float64(name):
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    student, target = rng.standard_normal((2, 4, 6))
    loss = jax.jit(SMOOTH[name])
    assert loss(jnp.array(student), target).dtype == np.float64
    check_grads(
      lambda s: loss(s, target), (student,), order=1, rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("kind", ["equal", "zero", "repeated", "opposite"])
def test_gradients_are_finite_in_corners(name, kind):
  target = GOLDEN["feat_t"]
  student = {
    "equal": target,
    "zero": np.zeros_like(target),
    "repeated": np.repeat(target[:1], 8, axis=0),
    "opposite": -target,
  }[kind]
  value, grad = value_and_grad(name)(student, target)
  assert np.isfinite(value)
  assert np.isfinite(grad).all()


def test_angle_of_equal_and_opposite_rows():
  x = GOLDEN["feat_t"]
  np.testing.assert_allclose(losses.angle(x, x), 0.0, atol=1e-3)
  np.testing.assert_allclose(losses.angle(x, -2 * x), np.pi, atol=1e-3)


def test_rkd_ignores_scale_and_rotation():
  rng = np.random.default_rng(1)
  rotation = np.linalg.qr(rng.standard_normal((16, 16)))[0].astype(np.float32)
  x = GOLDEN["feat_t"]
  assert losses.rkd(3 * x @ rotation + 1, x) < 1e-8
  assert losses.rkd(GOLDEN["feat_s"], x) > 1


def test_errors():
  x = GOLDEN["feat_s"]
  with pytest.raises(ValueError, match="got 1, needs at least 2"):
    losses.rkd(x[:1], x[:1])
  maps = fsp_maps("s")
  with pytest.raises(ValueError, match="got 4 of the student and 3"):
    losses.fsp(maps, maps[:3])
