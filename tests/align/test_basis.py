"""The streamed fit against a float64 SVD, and its file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from kd_jax.align import basis

GOLDEN = dict(
  np.load(Path(__file__).parents[1] / "golden" / "kdep_svd_pts.npz")
)
X = GOLDEN["X"]
update = jax.jit(basis.update)


def fit(rows, size=250, fingerprint=""):
  """Batches of one size; the last one is padded and masked."""
  state = basis.init(rows.shape[1])
  for start in range(0, len(rows), size):
    part = rows[start : start + size]
    batch = np.full((size, rows.shape[1]), np.nan, np.float32)
    batch[: len(part)] = part
    state = update(state, batch, (np.arange(size) < len(part)) * 1.0)
  return basis.finish(state, fingerprint)


def svd64(rows):
  rows = rows.astype(np.float64)
  mean = rows.mean(axis=0)
  _, singular, vt = np.linalg.svd(rows - mean, full_matrices=False)
  return mean, singular, vt.T


def sine(a, b):
  """Sine of the largest principal angle between two column spaces."""
  a, b = (np.linalg.qr(x.astype(np.float64))[0] for x in (a, b))
  return np.linalg.norm(a - b @ (b.T @ a), 2)


def assert_spectrum(got, singular, *, tol):
  """The scatter, hence every eigenvalue, is exact to tol times the first."""
  np.testing.assert_allclose(
    np.square(got.singular_values),
    np.square(singular),
    rtol=0,
    atol=tol * singular[0] ** 2,
  )


def assert_basis(got, rows, *, tol):
  mean, singular, vectors = svd64(rows)
  scale = rows.std()
  np.testing.assert_allclose(got.mean, mean, rtol=0, atol=tol * scale)
  assert_spectrum(got, singular, tol=tol)
  signs = np.sign(np.sum(got.basis * vectors, axis=0))
  # Neighbours differ by at least 1%: errors of the scatter grow 50-fold, and
  # more the smaller the eigenvalue is next to the first.
  leading = slice(0, 32)
  np.testing.assert_allclose(
    got.basis[:, leading], (vectors * signs)[:, leading], atol=100 * tol
  )
  assert got.count == len(rows)


@pytest.fixture(scope="module")
def fitted():
  return fit(X, size=271, fingerprint="r50/feature/data")


def test_fit_matches_float64_svd(fitted):
  # Float32 sums of 250 rows cost some 2e-8 of the largest number; here and
  # below, ten times that is left to CPUs that sum in another order.
  assert_basis(fitted, X, tol=2e-7)
  for width in (1, 16, 32):
    _, _, vectors = svd64(X)
    assert sine(fitted.basis[:, :width], vectors[:, :width]) < 5e-5
  np.testing.assert_allclose(
    fitted.channel_variance, X.astype(np.float64).var(axis=0, ddof=1), rtol=1e-6
  )


def test_fit_matches_original(fitted):
  np.testing.assert_allclose(
    fitted.mean, GOLDEN["feat_mean"], rtol=1e-5, atol=1e-6
  )
  assert_spectrum(fitted, GOLDEN["singular_values_f64"], tol=1e-7)
  assert_spectrum(fitted, GOLDEN["singular_values"], tol=1e-6)
  signs = np.sign(np.sum(fitted.basis * GOLDEN["V"], axis=0))
  np.testing.assert_allclose(fitted.basis, GOLDEN["V"] * signs, atol=3e-3)
  signs, leading = signs[:16], GOLDEN["V"][:, :16]
  np.testing.assert_allclose(fitted.basis[:, :16], leading * signs, atol=1e-5)
  np.testing.assert_allclose(
    basis.explained(fitted, 16), GOLDEN["evr16"], rtol=1e-6
  )
  assert basis.explained(fitted, 64) == 1


def test_sign_convention(fitted):
  largest = np.argmax(np.abs(fitted.basis), axis=0)
  assert (fitted.basis[largest, np.arange(64)] > 0).all()


def test_large_mean_costs_no_accuracy():
  offset = 30 * X.std() * (1 + np.arange(64, dtype=np.float32) / 64)
  moved = X + offset
  assert_basis(fit(moved), moved, tol=2e-7)


def test_more_channels_than_a_slab():
  rng = np.random.default_rng(2)
  dim = 2 * basis.SLAB + 30
  mix = rng.standard_normal((dim, dim)) * np.arange(1, dim + 1) ** -0.5
  rows = (rng.standard_normal((900, dim)) @ mix.T + 3).astype(np.float32)
  got = fit(rows, size=300)
  mean, singular, vectors = svd64(rows)
  np.testing.assert_allclose(got.mean, mean, rtol=0, atol=1e-6 * rows.std())
  assert_spectrum(got, singular, tol=2e-7)
  assert sine(got.basis[:, :8], vectors[:, :8]) < 1e-5
  np.testing.assert_allclose(
    got.channel_variance, rows.astype(np.float64).var(axis=0, ddof=1), rtol=1e-6
  )


def test_order_of_rows_does_not_matter(fitted):
  got = fit(X[np.random.default_rng(0).permutation(len(X))], size=200)
  np.testing.assert_allclose(got.mean, fitted.mean, atol=3e-7)
  assert_spectrum(got, fitted.singular_values, tol=2e-7)
  np.testing.assert_allclose(got.basis[:, :16], fitted.basis[:, :16], atol=1e-5)


def test_sums_are_compensated():
  # In float32, 2^25 + 2 + 2 + ... stays 2^25.
  state = basis.init(1)
  step = jax.jit(basis.update)
  state = step(state, np.array([[4096.0], [-4096.0]]), np.ones(2))
  for _ in range(64):
    state = step(state, np.array([[1.0], [-1.0]]), np.ones(2))
  got = basis.finish(state)
  np.testing.assert_allclose(
    got.singular_values[0] ** 2, 2**25 + 128, rtol=1e-12
  )


def test_empty_first_batch_and_masked_rows(fitted):
  state = basis.init(64)
  state = update(state, np.full((500, 64), np.nan, np.float32), np.zeros(500))
  for start in range(0, 2000, 250):
    rows = np.full((500, 64), 1e9, np.float32)
    rows[::2] = X[start : start + 250]
    state = update(state, rows, (np.arange(500) % 2 == 0) * 1.0)
  got = basis.finish(state)
  assert got.count == 2000
  assert_spectrum(got, fitted.singular_values, tol=2e-7)
  np.testing.assert_allclose(got.mean, fitted.mean, atol=3e-7)


def test_state_can_be_donated_and_low_precision_features_fit():
  step = jax.jit(basis.update, donate_argnums=0)
  state = basis.init(64)
  half = X.astype(jax.numpy.bfloat16)
  for start in range(0, 2000, 500):
    state = step(state, half[start : start + 500], np.ones(500))
  assert {x.dtype.name for x in state.scatter} == {"float32"}
  assert_basis(basis.finish(state), half.astype(np.float32), tol=2e-7)


def test_constant_channel_gives_zero_not_nan():
  rows = X[:500].copy()
  rows[:, 7] = 3.25
  got = fit(rows)
  assert got.channel_variance[7] < 1e-12
  assert got.singular_values[-1] < 1e-3 * got.singular_values[-2]
  assert np.isfinite(got.singular_values).all()


def test_artifact_is_small_and_float32(fitted):
  got = fitted.artifact(16)
  assert {k: v.shape for k, v in got.items()} == {
    "mean": (64,),
    "basis": (64, 16),
    "singular_values": (16,),
    "channel_variance": (64,),
  }
  assert {v.dtype for v in got.values()} == {np.dtype(np.float32)}
  np.testing.assert_array_equal(got["basis"], fitted.basis[:, :16])
  assert fitted.artifact(100)["basis"].shape == (64, 64)


def test_too_few_rows():
  state = update(basis.init(64), X[:250], (np.arange(250) < 1) * 1.0)
  with pytest.raises(ValueError, match="1 rows cannot determine 1 dir"):
    basis.finish(state)
  few = fit(X[:20])
  assert few.artifact(19)["basis"].shape == (64, 19)
  with pytest.raises(ValueError, match="20 rows cannot .* 32 .* least 33"):
    few.artifact(32)


def test_features_that_are_not_finite():
  bad = X[:500].copy()
  bad[13, 5] = np.inf
  with pytest.raises(ValueError, match="features of 500 rows hold NaN"):
    fit(bad)


def test_a_feature_that_never_varies():
  rows = np.full((9, 4), 0.5, np.float32)
  with pytest.raises(ValueError, match="the same in all 9 rows"):
    fit(rows)


def test_width_and_reuse_errors():
  with pytest.raises(ValueError, match=r"\(rows, 64\) here; got \(4, 32\)"):
    basis.update(basis.init(64), np.zeros((4, 32)), np.ones(4))
  state = update(basis.init(64), X[:250], np.ones(250))
  basis.finish(state)
  with pytest.raises(ValueError, match="finished before"):
    basis.finish(state)


def test_save_and_load(fitted, tmp_path):
  path = tmp_path / "new" / "basis.npz"
  basis.save(path, fitted)
  basis.save(path, fitted)
  assert [p.name for p in path.parent.iterdir()] == ["basis.npz"]
  got = basis.load(path, "r50/feature/data")
  for field in dataclasses.fields(basis.Basis):
    expected = getattr(fitted, field.name)
    assert type(getattr(got, field.name)) is type(expected)
    np.testing.assert_array_equal(getattr(got, field.name), expected)
  assert basis.load(path).fingerprint == "r50/feature/data"


def test_interrupted_save_keeps_the_old_file(fitted, tmp_path, monkeypatch):
  path = tmp_path / "basis.npz"
  basis.save(path, fitted)
  before = path.read_bytes()

  def broken(file, **_):
    file.write(b"half")
    raise OSError("disk full")

  monkeypatch.setattr(np, "savez", broken)
  with pytest.raises(OSError, match="disk full"):
    basis.save(path, fitted)
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ["basis.npz"]


def test_load_refuses_another_fingerprint(fitted, tmp_path):
  path = tmp_path / "basis.npz"
  basis.save(path, fitted)
  with pytest.raises(ValueError, match="'r50/feature/data'.*'other'.*delete"):
    basis.load(path, "other")


def test_load_names_missing_and_damaged_files(fitted, tmp_path):
  path = tmp_path / "basis.npz"
  with pytest.raises(ValueError, match="no basis at .*basis.npz; run the"):
    basis.load(path)
  basis.save(path, fitted)
  whole = path.read_bytes()
  flipped = bytearray(whole)
  flipped[len(whole) // 2] ^= 1
  np.save(tmp_path / "array.npy", np.ones(3))
  np.savez(tmp_path / "other.npz", mean=np.ones(3))
  for damaged in (
    b"",
    whole[: len(whole) // 2],
    whole[:-1],
    bytes(flipped),
    (tmp_path / "array.npy").read_bytes(),
    (tmp_path / "other.npz").read_bytes(),
  ):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="basis.npz is not a whole basis"):
      basis.load(path)
