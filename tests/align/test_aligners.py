"""Every aligner, against the original KDEP code and its own definition."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from kd_jax import resolve
from kd_jax.align import basis, nearest, pts, svd, svd_std, svd_variance

FOLDER = Path(__file__).parents[1] / "golden"
FIT = dict(np.load(FOLDER / "kdep_svd_pts.npz"))
GOLDEN = dict(np.load(FOLDER / "kdep_align_variants.npz"))
ROWS = FIT["X"][: int(GOLDEN["rows"])]
KEY = jax.random.key(0)


def original_basis():
  """What the original code stored, so that signs are its own."""
  variance = FIT["X"].astype(np.float64).var(axis=0, ddof=1)
  singular = FIT["singular_values_f64"]
  return basis.Basis(
    FIT["feat_mean"], FIT["V"], singular, variance, len(FIT["X"])
  )


BASIS = original_basis()
ARTIFACT = BASIS.artifact(16)
SINGULAR = ARTIFACT["singular_values"]


def teacher(aligner, rows, width, artifact=ARTIFACT):
  run = jax.jit(aligner.teacher, static_argnums=2)
  return np.asarray(run(artifact, rows, width))


def build(name, **fields):
  return resolve.build("align", "Aligner", {"name": name, **fields})


def assert_close(got, expected, rtol=2e-6):
  scale = np.abs(expected).max()
  np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * scale)


def test_every_file_is_listed():
  assert resolve.names("align", "Aligner") == [
    "joint_svd",
    "linear",
    "nearest",
    "phi_s",
    "random_channels",
    "scalar",
    "standardise",
    "svd",
    "svd_std",
    "svd_variance",
    "top_variance",
    "whitening",
  ]


def test_svd_matches_original():
  got = teacher(build("svd"), FIT["X"], 16)
  assert_close(got, FIT["proj16"])


def test_streamed_svd_matches_original_up_to_sign():
  state = basis.init(64)
  step = jax.jit(basis.update)
  for part in np.split(FIT["X"], 8):
    state = step(state, part, np.ones(250))
  artifact = basis.finish(state).artifact(16)
  got = teacher(build("svd"), FIT["X"], 16, artifact)
  signs = np.sign(np.sum(artifact["basis"] * FIT["V"][:, :16], axis=0))
  assert_close(got * signs, FIT["proj16"], rtol=1e-5)


@pytest.mark.parametrize(
  ("name", "columns"),
  [("svd_smallest16", slice(-16, None)), ("svd_next16", slice(16, 32))],
)
def test_other_directions_match_original(name, columns):
  got = svd.project(ROWS, FIT["feat_mean"], FIT["V"][:, columns])
  assert_close(got, GOLDEN[name], rtol=1e-5)


@pytest.mark.parametrize("width", [16, 24])
def test_nearest_matches_original(width):
  got = teacher(build("nearest"), ROWS, width, {})
  np.testing.assert_array_equal(got, GOLDEN[f"interp{width}"])


def test_top_variance_matches_original():
  order = np.argsort(-ARTIFACT["channel_variance"], kind="stable")[:16]
  np.testing.assert_array_equal(order, GOLDEN["var_indice16"])
  got = teacher(build("top_variance"), ROWS, 16)
  np.testing.assert_array_equal(got, GOLDEN["select_var16"])


@pytest.mark.parametrize("stat", ["x500", "mean", "min", "max"])
def test_equal_variance_matches_original(stat):
  inverse = 1 / SINGULAR
  scale = 500 if stat == "x500" else 1 / getattr(np, stat)(inverse)
  got = teacher(build("svd_std", ratio=1.0, scale=float(scale)), ROWS, 16)
  assert_close(got, GOLDEN[f"equalvar_{stat}"])


def test_std_matching_matches_original():
  assert_close(
    svd_std.linear_spread(SINGULAR, 2.98), GOLDEN["stdmatch_linear_term"]
  )
  got = teacher(build("svd_std"), ROWS, 16)
  assert_close(got, GOLDEN["stdmatch_linear_R2p98_x357"])


def test_std_matching_sets_the_deviations():
  rows = FIT["X"]
  scale = np.sqrt(len(rows) - 1)
  got = teacher(build("svd_std", ratio=3.0, scale=float(scale)), rows, 16)
  std = got.std(axis=0, ddof=1)
  np.testing.assert_allclose(std[[0, -1]], [3, 1], rtol=1e-3)
  np.testing.assert_allclose(pts.std_ratio(got), 3, rtol=1e-3)


def test_variance_weights_match_original():
  expected = np.sort(ARTIFACT["channel_variance"])[::-1][:16]
  assert_close(expected, GOLDEN["stdmatch_origvar_term"])
  got = teacher(build("svd_variance"), ROWS, 16)
  assert_close(got, GOLDEN["stdmatch_origvar_x357"])


def test_random_channels():
  got = teacher(build("random_channels", seed=3), ROWS, 16, {})
  same = [np.flatnonzero((c[:, None] == ROWS).all(axis=0)) for c in got.T]
  channels = np.concatenate(same)
  assert len(set(channels)) == 16
  again = teacher(build("random_channels", seed=3), ROWS, 16, {})
  np.testing.assert_array_equal(got, again)
  other = teacher(build("random_channels", seed=4), ROWS, 16, {})
  assert not np.array_equal(got, other)


def test_linear_acts_on_the_student():
  aligner = build("linear")
  params = aligner.init(KEY, 5, 64)
  assert jax.tree.map(np.shape, params) == {"kernel": (5, 64), "bias": (64,)}
  feature = ROWS[:, :5]
  expected = feature @ np.asarray(params["kernel"]) + 0.5
  got = aligner.student(params | {"bias": params["bias"] + 0.5}, feature)
  assert_close(np.asarray(got), expected)
  np.testing.assert_array_equal(teacher(aligner, ROWS, 5, {}), ROWS)
  kernel = np.asarray(aligner.init(KEY, 512, 64)["kernel"])
  np.testing.assert_allclose(kernel.std(), 512**-0.5, rtol=0.02)


HEADED = {"linear", "phi_s", "scalar", "standardise", "whitening"}
TEACHER_SIDE = sorted(set(resolve.names("align", "Aligner")) - HEADED)


@pytest.mark.parametrize("name", TEACHER_SIDE)
def test_wider_student_gets_components_cyclically(name):
  artifact = BASIS.artifact(150)
  full = teacher(build(name), ROWS[:8], 64, artifact)
  got = teacher(build(name), ROWS[:8], 150, artifact)
  assert got.shape == (8, 150)
  assert np.unique(full, axis=1).shape[1] == 64
  np.testing.assert_allclose(
    got, full[:, np.arange(150) % 64], rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize("name", TEACHER_SIDE)
def test_student_is_untouched_and_maps_work(name):
  aligner = build(name)
  assert aligner.init(KEY, 5, 64) == {}
  np.testing.assert_array_equal(aligner.student({}, ROWS), ROWS)
  maps = ROWS[:8].reshape(2, 2, 2, 64)
  flat = teacher(aligner, ROWS[:8], 16)
  got = teacher(aligner, maps, 16)
  assert_close(got.reshape(8, 16), flat)


@pytest.mark.parametrize("module", [svd_std, svd_variance])
def test_directions_without_variance_are_zero(module):
  artifact = ARTIFACT | {"singular_values": SINGULAR * (np.arange(16) < 10)}
  got = teacher(module.Aligner(), ROWS, 16, artifact)
  assert np.isfinite(got).all()
  assert (got[:, 10:] == 0).all()
  assert (got[:, :10].std(axis=0) > 0.1).all()


def test_single_channel_student():
  got = teacher(build("svd_std", ratio=2.0, scale=1.0), ROWS, 1)
  expected = 2 * FIT["proj16"][: len(ROWS), :1] / SINGULAR[0]
  assert_close(got, expected, rtol=1e-5)


@pytest.mark.parametrize(
  "name", ["svd", "svd_std", "svd_variance", "top_variance"]
)
def test_artifact_errors(name):
  aligner = build(name)
  assert aligner.needs_basis
  with pytest.raises(ValueError, match="needs a fitted basis.*fit_svd"):
    aligner.teacher({}, ROWS, 16)
  with pytest.raises(ValueError, match="on 64 channels .* has 32"):
    aligner.teacher(ARTIFACT, ROWS[:, :32], 16)


def test_too_narrow_basis():
  with pytest.raises(ValueError, match=r"16 directions .*artifact\(32\)"):
    svd.Aligner().teacher(ARTIFACT, ROWS, 32)


def test_settings_are_positive():
  with pytest.raises(ValueError, match="positive; got 0.0 and 357"):
    svd_std.Aligner(ratio=0.0)
  with pytest.raises(ValueError, match="scale is positive; got -1"):
    svd_variance.Aligner(scale=-1.0)
  assert not nearest.Aligner().needs_basis
