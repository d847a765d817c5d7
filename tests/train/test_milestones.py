"""Rates that fall at given steps, as detectors train."""

import bisect

import numpy as np
import pytest

from kd_jax.train.optim import Optim

FIELDS = {"schedule": "milestones", "lr": 0.02, "gamma": 0.1}


def test_rates_are_those_of_a_warm_up_times_steps():
  optim = Optim(**FIELDS, milestones=(60, 80), warmup=10, warmup_lr=0.02 / 1000)
  rate = optim.rate(90)
  for step in range(90):
    # Detectron2's WarmupMultiStepLR: both factors count from step 0.
    share = min(step / 10, 1)
    warm = 1e-3 * (1 - share) + share
    want = 0.02 * warm * 0.1 ** bisect.bisect_right([60, 80], step)
    np.testing.assert_allclose(
      rate(step), want, rtol=1e-5, atol=2e-9, err_msg=str(step)
    )


@pytest.mark.parametrize(
  "fields, match",
  [
    ({"milestones": ()}, "needs rising steps"),
    ({"milestones": (8, 4)}, "needs rising steps"),
    ({"milestones": (0, 4)}, "needs rising steps"),
    ({"milestones": (4, 8), "schedule": "step"}, "no other schedule any"),
    ({"milestones": (4, 8), "warmup": 4}, "must come later"),
  ],
)
def test_milestones_that_cannot_be_are_named(fields, match):
  with pytest.raises(ValueError, match=match):
    Optim(**{**FIELDS, **fields})
