"""Teachers brought to one scale, against PHI-S's own code and NumPy."""

import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn import datasets, neural_network

from kd_jax import resolve
from kd_jax.align import basis as basis_lib
from kd_jax.align.balance import hadamard

FOLDER = Path(__file__).parents[2] / "golden"
GOLDEN = dict(np.load(FOLDER / "peers_balance.npz"))
PIXELS = datasets.load_digits().data.astype(np.float32)
NAMES = ("joint_svd", "phi_s", "scalar", "standardise", "whitening")


def fitted(rows):
  """The artifact of some rows, whole."""
  state = basis_lib.init(rows.shape[1])
  ones = np.ones(len(rows), np.float32)
  found = basis_lib.finish(jax.jit(basis_lib.update)(state, rows, ones))
  whole = found.artifact(rows.shape[1])
  return {**whole, "rows": np.float32(found.count)}


def target(name, rows, width=8, widths=None, **fields):
  aligner = resolve.build("align", "Aligner", {"name": name, **fields})
  found = aligner.refined(fitted(rows), widths or [rows.shape[1]])
  run = jax.jit(aligner.teacher, static_argnums=2)
  return np.asarray(run(found, rows, width)), found


@pytest.mark.parametrize("order", [1, 2, 4, 12, 20, 28, 36, 44, 104])
def test_hadamard_matrices_are_orthogonal_with_entries_of_one_size(order):
  found = hadamard.hadamard(order)
  assert set(np.unique(found)) <= {-1.0, 1.0}
  np.testing.assert_array_equal(found @ found.T, order * np.eye(order))


def test_widths_of_networks_have_one_and_others_a_rotation():
  for order in (384, 768, 1024, 1152, 1280, 1408, 1536, 1664, 2048):
    assert hadamard.hadamard(order) is not None, order
  assert hadamard.hadamard(6) is None
  found = hadamard.rotation(6, seed=3)
  np.testing.assert_allclose(found @ found.T, np.eye(6), atol=1e-12)
  np.testing.assert_array_equal(found, hadamard.rotation(6, seed=3))
  assert np.abs(found - hadamard.rotation(6, seed=4)).max() > 0.1


@pytest.mark.parametrize("dim", [12, 16, 28])
def test_phi_s_is_that_of_its_authors(dim):
  golden = {
    k.removeprefix(f"phi_s_{dim}/"): v
    for k, v in GOLDEN.items()
    if k.startswith(f"phi_s_{dim}/")
  }
  rows = golden["in/X"]
  got, artifact = target("phi_s", rows)
  np.testing.assert_allclose(artifact["mean"], golden["mean"], atol=1e-5)
  gram = got[:10] @ got[:10].T
  want = golden["whitened_gram"]
  np.testing.assert_allclose(gram, want, atol=1e-5 * np.abs(want).max())
  size = np.linalg.norm(artifact["basis"], axis=0)
  np.testing.assert_allclose(size, golden["scale"], rtol=1e-5)


def test_phi_s_gives_every_channel_the_same_variance_and_can_be_undone():
  # 61 of the 64 pixels vary; three directions of them have no variance.
  got, artifact = target("phi_s", PIXELS)
  variance = got.astype(np.float64).var(0, ddof=1)
  np.testing.assert_allclose(variance, 1, rtol=1e-6)
  back = got @ np.linalg.inv(artifact["basis"]) + artifact["mean"]
  np.testing.assert_allclose(back, PIXELS, atol=1e-5 * PIXELS.max())


def test_phi_s_of_the_features_of_a_trained_network():
  """Every channel has 1/d of the total variance; and back again."""
  digits = datasets.load_digits()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # 20 rounds are not the end
    network = neural_network.MLPClassifier((96,), max_iter=20, random_state=0)
    network.fit(PIXELS, digits.target)
  assert network.score(PIXELS, digits.target) > 0.97
  rows = PIXELS @ network.coefs_[0] + network.intercepts_[0]
  rows = rows.astype(np.float32)
  before = rows.astype(np.float64).var(0, ddof=1)
  assert before.max() > 5 * before.min()
  got, artifact = target("phi_s", rows)
  variance = got.astype(np.float64).var(0, ddof=1)
  np.testing.assert_allclose(variance / variance.sum(), 1 / 96, rtol=1e-6)
  inverse = np.linalg.inv(artifact["basis"].astype(np.float64))
  back = got @ inverse + artifact["mean"]
  np.testing.assert_allclose(back, rows, atol=1e-5 * np.abs(rows).max())


def test_proportions_are_kept_or_evened_out():
  raw = PIXELS.astype(np.float64)
  spread = raw.var(0, ddof=1)
  scalar = target("scalar", PIXELS)[0]
  want = (raw - raw.mean(0)) / np.sqrt(spread.mean())
  np.testing.assert_allclose(scalar, want, atol=1e-5)
  got = target("standardise", PIXELS)[0]
  lively = spread > 0
  want = (raw - raw.mean(0))[:, lively] / np.sqrt(spread[lively])
  np.testing.assert_allclose(got[:, lively], want, atol=2e-4)
  np.testing.assert_array_equal(got[:, ~lively], 0)
  white = target("whitening", PIXELS, floor=1e-6)[0]
  kept = np.abs(white).max(0) > 0
  assert kept.sum() == np.linalg.matrix_rank(raw - raw.mean(0))
  covariance = np.cov(white[:, kept].T)
  np.testing.assert_allclose(covariance, np.eye(kept.sum()), atol=1e-3)


@pytest.mark.parametrize("standard", ["channel", "teacher"])
def test_joint_svd_is_numpys_of_the_concatenation(standard):
  rng = np.random.default_rng(0)
  rows = PIXELS[:, rng.permutation(64)] * np.repeat([1.0, 30.0], [40, 24])
  rows = rows.astype(np.float32)
  got, artifact = target("joint_svd", rows, 8, [40, 24], standard=standard)
  x = rows.astype(np.float64) - rows.astype(np.float64).mean(0)
  spread = x.var(0, ddof=1)
  if standard == "teacher":
    spread = np.repeat([spread[:40].mean(), spread[40:].mean()], [40, 24])
  x = x / np.sqrt(np.where(spread > 0, spread, 1))
  left, singular, _ = np.linalg.svd(x, full_matrices=False)
  want = (left * singular)[:, :8]
  want = want * np.sign((got * want).sum(0))
  np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())
  np.testing.assert_allclose(
    artifact["singular_values"][:50], singular[:50], rtol=1e-4
  )
  # Without its standard deviations the second teacher would be all of it.
  share = (artifact["basis"][40:, :8] ** 2 * spread[40:, None]).sum(0)
  assert share.min() < 0.7


@pytest.mark.parametrize("name", NAMES)
def test_statistics_keep_their_shapes_and_gradients_reach_the_head(name):
  aligner = resolve.build("align", "Aligner", {"name": name})
  raw = fitted(PIXELS)
  found = aligner.refined(raw, [64])
  assert {k: np.shape(v) for k, v in found.items()} == {
    k: np.shape(v) for k, v in raw.items()
  }
  params = aligner.init(jax.random.key(0), 8, 64)
  student = aligner.student(params, PIXELS[:4, :8])
  assert student.shape == aligner.teacher(found, PIXELS[:4], 8).shape


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"name": "whitening", "floor": 1.0}, "align.floor is 1.0"),
    ({"name": "joint_svd", "standard": "x"}, "align.standard is 'x'"),
  ],
)
def test_impossible_fields_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    resolve.build("align", "Aligner", fields)
