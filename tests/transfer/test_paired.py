import numpy as np
import pytest

from kd_jax.transfer import paired


def test_what_rows_have_in_common_cancels():
  draws = np.random.default_rng(0).normal(0.9, 0.05, 12)
  gain = np.random.default_rng(1).normal(0.01, 0.002, 12)
  found = paired.difference((draws + gain).tolist(), draws.tolist())
  np.testing.assert_allclose(found.per_seed, gain)
  np.testing.assert_allclose(found.mean, gain.mean())
  np.testing.assert_allclose(found.error, gain.std(ddof=1) / np.sqrt(12))
  unpaired = np.sqrt(2 * draws.var(ddof=1) / 12)
  assert found.error < unpaired / 10


def test_a_single_seed_has_no_error():
  assert paired.difference([0.9], [0.8])[1:] == (pytest.approx(0.1), None)
  assert paired.spread([0.9]) is None


@pytest.mark.parametrize(("ours", "theirs"), [([0.9], [0.8, 0.7]), ([], [])])
def test_rows_of_other_seeds_are_refused(ours, theirs):
  with pytest.raises(ValueError, match="at the same seeds"):
    paired.difference(ours, theirs)
