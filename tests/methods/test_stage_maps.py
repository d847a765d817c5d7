"""How maps of student and teacher are made comparable, against NumPy."""

import jax
import numpy as np
import pytest

from kd_jax.methods import stage_maps


def draw(*shape):
  return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def test_the_larger_map_is_averaged_down():
  small, large = draw(2, 2, 2, 3), draw(2, 4, 4, 3)
  want = large.reshape(2, 2, 2, 2, 2, 3).mean((2, 4))
  how = stage_maps.Comparison()
  for x, t, wanted in (
    (small, large, (small, want)),
    (large, small, (want, small)),
  ):
    found = how.sides({}, {}, x, t)
    for a, b in zip(found, wanted, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  rows = how.rows(*how.sides({}, {}, small, large))
  np.testing.assert_allclose(
    rows, np.square(small - want).mean((1, 2, 3)), rtol=1e-5
  )
  summed = stage_maps.Comparison(reduction="sum")
  np.testing.assert_allclose(summed.rows(small, want), 12 * rows, rtol=1e-5)


def test_bilinear_takes_the_student_to_the_teacher_s_size():
  ramp = np.tile(
    np.arange(2, dtype=np.float32)[None, :, None, None], (1, 1, 2, 1)
  )
  how = stage_maps.Comparison(size="bilinear")
  x, target = how.sides({}, {}, ramp, np.zeros((1, 4, 4, 1), np.float32))
  assert x.shape == target.shape == (1, 4, 4, 1)
  np.testing.assert_allclose(x[0, :, 0, 0], [0, 0.25, 0.75, 1], atol=1e-6)


def test_tokens_are_compared_as_maps():
  tokens = draw(2, 1 + 4, 3)
  x, _ = stage_maps.Comparison().sides({}, {}, tokens, draw(2, 2, 2, 3))
  np.testing.assert_array_equal(x, tokens[:, 1:].reshape(2, 2, 2, 3))


def statistics(rows):
  """As `basis.Basis.artifact`, by NumPy, and the number of rows."""
  mean = rows.mean(0)
  _, singular, vt = np.linalg.svd(rows - mean, full_matrices=False)
  fields = {
    "mean": mean,
    "basis": vt.T,
    "singular_values": singular,
    "channel_variance": rows.var(0, ddof=1),
    "rows": np.float32(len(rows)),
  }
  return {k: np.float32(v) for k, v in fields.items()}


def test_standardised_targets_have_mean_0_and_deviation_1():
  target = 3 * draw(5, 4, 4, 6) + 1
  target[..., 2] = 7.0  # a dead channel stays at 0
  artifact = statistics(target.reshape(-1, 6))
  how = stage_maps.Comparison(normalise="standard")
  _, found = how.sides({}, artifact, target, target)
  deviations = np.float64(found).std((0, 1, 2), ddof=1)
  np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(deviations, [1, 1, 0, 1, 1, 1], rtol=1e-4)
  assert how.needs_statistics and not stage_maps.Comparison().needs_statistics


@pytest.mark.parametrize("normalise", ["off", "standard"])
def test_svd_compares_with_the_leading_directions(normalise):
  target = draw(5, 4, 4, 6) * np.float32([5, 4, 3, 2, 1, 0.1]) + 1
  artifact = statistics(target.reshape(-1, 6))
  how = stage_maps.Comparison(adapter="svd", normalise=normalise)
  student = draw(5, 4, 4, 3)
  assert how.init(jax.random.key(0), 3, 6) == {}
  x, found = how.sides({}, artifact, student, target)
  want = (target - artifact["mean"]) @ artifact["basis"][:, :3]
  if normalise == "standard":
    want = want / want.std((0, 1, 2), ddof=1)
  np.testing.assert_array_equal(x, student)
  np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


def test_cos_compares_directions():
  x, target = draw(2, 2, 2, 3), draw(2, 2, 2, 3) + 1
  how = stage_maps.Comparison(normalise="cos")
  found = how.rows(*how.sides({}, {}, x, target))
  norms = [np.linalg.norm(y, axis=-1) for y in (x, target)]
  cosine = (x * target).sum(-1) / (norms[0] * norms[1])
  want = ((2 - 2 * cosine) / 3).mean((1, 2))
  np.testing.assert_allclose(found, want, rtol=1e-4)


@pytest.mark.parametrize("widths", [(3, 5), (5, 3)])
@pytest.mark.parametrize("adapter", ["linear", "orthogonal"])
def test_adapters_bring_the_student_to_the_teacher_s_width(adapter, widths):
  how = stage_maps.Comparison(adapter=adapter)
  params = how.init(jax.random.key(0), *widths)
  x, target = draw(2, 2, 2, widths[0]), draw(2, 2, 2, widths[1])

  def loss(params):
    return how.rows(*how.sides(params, {}, x, target)).mean()

  value, grads = jax.value_and_grad(loss)(params)
  assert np.isfinite(value)
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))
  if adapter == "orthogonal":
    unit = np.eye(widths[0], dtype=np.float32)[None, None]
    target = np.zeros((*unit.shape[:3], widths[1]), np.float32)
    matrix = np.asarray(how.sides(params, {}, unit, target)[0][0, 0])
    gram = matrix @ matrix.T if widths[0] < widths[1] else matrix.T @ matrix
    np.testing.assert_allclose(gram, np.eye(3), atol=1e-5)
