"""Accuracy of the student's own classifier.

Reads `--config.eval.tap=logits`; the training rows play no part.
"""

from __future__ import annotations

import numpy as np

from kd_jax.evals import features

OWN_CLASSES = True
"""Reads the student's classifier: only labels of its classes will do."""


def evaluate(
  train: features.Features, test: features.Features
) -> dict[str, float]:
  """Share of rows whose largest logit is that of the label.

  Args:
    train: not looked at, beyond what every evaluation checks.
    test: logits and labels.

  Returns:
    {'top1': share of correct test rows, in [0, 1]}.

  Raises:
    ValueError: labels are missing, or beyond the classes of the logits.
  """
  features.check(train, test, "top1")
  classes, last = test.feature.shape[1], int(test.label.max())
  if last >= classes:
    raise ValueError(
      f"top1 reads logits, and its rows have {classes} entries for labels up "
      f"to {last}. Set --config.eval.tap=logits, and "
      "--config.student.overrides.num_classes to the classes of the data."
    )
  return {"top1": float(np.mean(test.feature.argmax(1) == test.label))}
