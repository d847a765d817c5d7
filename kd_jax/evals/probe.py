"""Linear probe: multinomial logistic regression on frozen features."""

from __future__ import annotations

import warnings

import numpy as np
from absl import logging

from kd_jax.evals import features


def evaluate(
  train: features.Features,
  test: features.Features,
  *,
  C: float = 1.0,  # noqa: N803 (the name scikit-learn users know)
  max_iter: int = 1000,
) -> dict[str, float]:
  """Top-1 accuracy of a linear classifier fitted to the training rows.

  Features are standardised with training statistics, so that one C serves
  networks of any feature scale and L-BFGS converges. A fit that has not
  converged after `max_iter` iterations counts, and is logged as such.

  Args:
    train: rows to fit.
    test: rows to score.
    C: inverse strength of the L2 penalty, on the sum over rows.
    max_iter: limit of L-BFGS iterations.

  Returns:
    {'probe': share of correct test rows, in [0, 1]}.

  Raises:
    ValueError: a field is out of range, labels are missing, or there is one
      class only.
  """
  from sklearn import exceptions, linear_model, pipeline, preprocessing

  if C <= 0 or max_iter < 1:
    raise ValueError(
      f"probe needs C > 0 and max_iter >= 1, got C={C}, max_iter={max_iter}"
    )
  features.check(train, test, "probe")
  classes = np.unique(train.label)
  if len(classes) < 2:
    raise ValueError(
      f"probe needs at least two classes among the training rows, got only "
      f"{classes.tolist()}; take more rows or shuffle them"
    )
  model = pipeline.make_pipeline(
    preprocessing.StandardScaler(),
    linear_model.LogisticRegression(C=C, max_iter=max_iter),
  )
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", exceptions.ConvergenceWarning)
    model.fit(train.feature, train.label)
  if caught:
    logging.warning(
      "probe: not converged after %d iterations; its accuracy is a lower "
      "estimate. Raise max_iter or lower C.",
      max_iter,
    )
  return {"probe": float(model.score(test.feature, test.label))}
