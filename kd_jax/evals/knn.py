"""Weighted nearest-neighbour classification of frozen features.

Wu et al. 2018, "Unsupervised feature learning via non-parametric instance
discrimination" (arXiv 1805.01978), section 3.4; DINO (arXiv 2104.14294) uses
the same rule: the k most similar training rows i vote for their class with
exp(cos_i / temperature).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kd_jax.evals import features

_CHUNK = 256  # Queries at a time: bounds the (chunk, n) similarity matrix.


def evaluate(
  train: features.Features,
  test: features.Features,
  *,
  k: int = 20,
  temperature: float = 0.07,
) -> dict[str, float]:
  """Top-1 accuracy of k-nearest-neighbour classification.

  Args:
    train: rows that vote.
    test: rows to classify.
    k: number of neighbours; at most all training rows.
    temperature: of the votes; smaller trusts the nearest rows more.

  Returns:
    {'knn': share of correct test rows, in [0, 1]}.

  Raises:
    ValueError: a field is out of range or labels are missing.
  """
  if k < 1 or temperature <= 0:
    raise ValueError(
      f"knn needs k >= 1 and temperature > 0, got k={k}, "
      f"temperature={temperature}"
    )
  features.check(train, test, "knn")
  classes, label = np.unique(train.label, return_inverse=True)
  predicted = _predict(
    _unit(train.feature),
    label,
    _unit(test.feature),
    k=min(k, len(label)),
    num_classes=len(classes),
    temperature=temperature,
  )
  return {"knn": float(np.mean(classes[np.asarray(predicted)] == test.label))}


def _unit(feature: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
  norm = np.linalg.norm(feature, axis=1, keepdims=True)
  return feature / np.maximum(norm, np.finfo(np.float32).tiny)


@functools.partial(jax.jit, static_argnames=("k", "num_classes"))
def _predict(
  bank: Float[Array, "n d"],
  label: Int[Array, " n"],
  query: Float[Array, "m d"],
  *,
  k: int,
  num_classes: int,
  temperature: float,
) -> Int[Array, " m"]:
  def classify(row: Float[Array, " d"]) -> Int[Array, ""]:
    similarity = jnp.matmul(bank, row, precision="highest")
    top, index = jax.lax.top_k(similarity, k)
    # Taking out the largest leaves the winner and keeps exp from overflowing.
    weight = jnp.exp((top - top[0]) / temperature)
    return jnp.zeros(num_classes).at[label[index]].add(weight).argmax()

  return jax.lax.map(classify, query, batch_size=_CHUNK)
