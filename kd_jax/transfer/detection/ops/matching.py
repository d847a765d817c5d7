"""Which boxes stand for which objects, and which of them are trained on."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Match(NamedTuple):
  """What boxes stand for.

  Attributes:
    row: (k,) int32, the truth that overlaps most; 0 where there is none.
    label: (k,) int32, 1 for an object, 0 for background, -1 for neither.
  """

  row: Int[Array, " k"]
  label: Int[Array, " k"]


class Picked(NamedTuple):
  """Boxes to train on: those of objects, then background, then empty slots.

  Attributes:
    row: (count,) int32, 0 in empty slots.
    positive: (count,) whether it stands for an object.
    valid: (count,) whether the slot is filled.
  """

  row: Int[Array, " count"]
  positive: Bool[Array, " count"]
  valid: Bool[Array, " count"]


def match(
  overlap: Float[Array, "g k"],
  valid: Bool[Array, " g"],
  low: float,
  high: float,
  *,
  low_quality: bool,
) -> Match:
  """Compares the best overlap of every box with two thresholds.

  The rules of arXiv:1506.01497, section 3.1.2. Of equal overlaps the first
  truth counts.

  Args:
    overlap: of every truth with every box.
    valid: whether a row is a truth, or padding.
    low: below it a box is background.
    high: from here on it stands for its truth; between the two for neither.
    low_quality: a box stands for an object too if no other overlaps some
      truth more. A truth that overlaps no box changes nothing.
  """
  overlap = jnp.where(valid[:, None], overlap, -1)
  # Compared with its own maximum below: it must not be computed twice, since
  # a compiler may round differently the second time.
  overlap = jax.lax.optimization_barrier(jax.lax.stop_gradient(overlap))
  best = jnp.max(overlap, 0, initial=-1)
  label = jnp.where(best < low, 0, jnp.where(best < high, -1, 1))
  if low_quality:
    highest = jnp.max(overlap, 1, keepdims=True, initial=0)
    reached = (overlap == highest) & (highest > 0)
    label = jnp.where(jnp.any(reached, 0), 1, label)
  row = jnp.argmax(overlap, 0) if overlap.shape[0] else jnp.zeros_like(label)
  return Match(row.astype(jnp.int32), label.astype(jnp.int32))


def chosen(
  key: Array | None, label: Int[Array, " k"], count: int, fraction: float
) -> Int[Array, " k"]:
  """Labels of a sample; -1 everywhere else.

  Args:
    key: draws uniformly; None takes the first ones.
    label: 1 for objects, 0 for background, -1 for neither.
    count: size of the sample, less if there are not enough.
    fraction: at most this part of it are objects; background fills the rest.
  """
  row, positive, valid = picked(key, label, count, fraction)
  row = jnp.where(valid, row, label.shape[0])  # out of range: dropped
  sampled = jnp.full_like(label, -1)
  return sampled.at[row].set(positive.astype(label.dtype), mode="drop")


def picked(
  key: Array | None, label: Int[Array, " k"], count: int, fraction: float
) -> Picked:
  """Rows of a sample; arguments as of `chosen`."""
  keys = (None, None) if key is None else jax.random.split(key)
  most = int(count * fraction)
  objects, has_object = _drawn(keys[0], label == 1, most)
  others, has_other = _drawn(keys[1], label == 0, count)
  slot = jnp.arange(count)
  after = slot - jnp.sum(has_object)
  positive = after < 0
  valid = positive | (after < jnp.sum(has_other))
  # Both lists in one; the second begins at `most`.
  place = jnp.where(positive, slot, most + after)
  row = jnp.concatenate([objects, others])[place]
  return Picked(jnp.where(valid, row, 0), positive, valid)


def _drawn(
  key: Array | None, eligible: Bool[Array, " k"], most: int
) -> tuple[Int[Array, " most"], Bool[Array, " most"]]:
  """(rows, whether there was one); the eligible rows come first."""
  total = eligible.shape[0]
  if key is None:
    priority = -jnp.arange(total, dtype=jnp.float32)
  else:
    priority = jax.random.uniform(key, (total,))
  priority = jnp.where(eligible, priority, -jnp.inf)
  value, row = jax.lax.top_k(priority, min(most, total))
  pad = (0, most - row.shape[0])
  return jnp.pad(row, pad), jnp.pad(jnp.isfinite(value), pad)
