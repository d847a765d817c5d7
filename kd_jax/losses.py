"""Losses of distillation: pure functions of arrays, in their own precision.

Rows are examples. Every gradient with respect to the student stays finite
wherever training can go (equal, zero or repeated rows); where a definition
has no derivative it is zero. Definitions follow the code released with KDEP
(He et al., CVPR 2022) unless another paper is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

Scalar = Float[Array, ""]

_HIGHEST = jax.lax.Precision.HIGHEST


def mse(student: Float[Array, "*n"], target: Float[Array, "*n"]) -> Scalar:
  """Mean of (student - target)^2 over all entries; KDEP's training loss."""
  return jnp.mean(jnp.square(student - target))


def relative_error(
  student: Float[Array, "*n"], target: Float[Array, "*n"]
) -> Scalar:
  """||student - target||^2 / ||target||^2."""
  return jnp.sum(jnp.square(student - target)) / jnp.sum(jnp.square(target))


def mse_l2norm(
  student: Float[Array, "n d"], target: Float[Array, "n d"]
) -> Scalar:
  """`mse` of rows scaled to unit length."""
  return mse(_unit(student), _unit(target))


def mse_exp(
  student: Float[Array, "n d"],
  target: Float[Array, "n d"],
  temperature: float,
) -> Scalar:
  """`mse` of exp(x / temperature)."""
  return mse(jnp.exp(student / temperature), jnp.exp(target / temperature))


def sse_softmax(
  student: Float[Array, "n d"],
  target: Float[Array, "n d"],
  temperature: float,
) -> Scalar:
  """Sum of squared differences of softmax(x / temperature)."""
  difference = jax.nn.softmax(student / temperature) - jax.nn.softmax(
    target / temperature
  )
  return jnp.sum(jnp.square(difference))


def mse_sign_aligned(
  student: Float[Array, "n d"], target: Float[Array, "n d"]
) -> Scalar:
  """`mse` with student rows flipped where they oppose the target's."""
  sign = jnp.sign(jnp.sum(student * target, axis=-1, keepdims=True))
  return mse(student * sign, target)


def distill_kl(
  student: Float[Array, "n c"],
  teacher: Float[Array, "n c"],
  temperature: float,
) -> Scalar:
  """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over rows.

  Hinton et al., Distilling the Knowledge in a Neural Network, 2015.
  """
  return jnp.mean(_kl_rows(student, teacher, temperature))


def distill_kl_masked(
  student: Float[Array, "n c"],
  teacher: Float[Array, "n c"],
  judge: Float[Array, "n c"],
  *,
  temperature: float,
  threshold: float,
) -> Scalar:
  """`distill_kl` of the rows on which the logits `judge` are confident.

  A row counts if the entropy of softmax(judge) is at most `threshold` times
  that of the uniform distribution; the sum is divided by all rows.
  """
  keep = confident(judge, threshold)
  return jnp.mean(jnp.where(keep, _kl_rows(student, teacher, temperature), 0))


def confident(logits: Float[Array, "n c"], threshold: float) -> Array:
  """(n,) bool: entropy of softmax(logits) <= threshold ln(c)."""
  log_p = jax.nn.log_softmax(logits)
  entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
  return entropy <= threshold * math.log(logits.shape[-1])


def cross_entropy(
  logits: Float[Array, "n c"],
  labels: Int[Array, " n"] | Float[Array, "n c"],
) -> Scalar:
  """-sum target log softmax(logits), mean over the rows with a label.

  Args:
    logits: of every class.
    labels: class numbers, -1 where there is none, or probabilities, all zero
      where there is none.
  """
  if labels.ndim == 2:
    rows = optax.softmax_cross_entropy(logits, labels)
    labelled = jnp.sum(labels, -1) > 0
  else:
    labelled = labels >= 0
    rows = optax.softmax_cross_entropy_with_integer_labels(
      logits, jnp.where(labelled, labels, 0)
    )
  total = jnp.sum(jnp.where(labelled, rows, 0))
  return total / jnp.maximum(jnp.sum(labelled), 1)


def soft_cross_entropy(
  student: Float[Array, "n c"],
  teacher: Float[Array, "n c"],
  temperature: float,
) -> Scalar:
  """-T^2 sum softmax(teacher / T) log softmax(student / T), mean over rows."""
  target = jax.nn.softmax(teacher / temperature)
  rows = optax.softmax_cross_entropy(student / temperature, target)
  return temperature**2 * jnp.mean(rows)


def binary_cross_entropy(
  logits: Float[Array, "n c"],
  labels: Int[Array, " n"] | Float[Array, "n c"],
) -> Scalar:
  """One binary problem per class, summed; mean over the rows with a label.

  Args:
    logits: of every class.
    labels: as in `cross_entropy`.
  """
  if labels.ndim == 1:
    labels = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
  rows = optax.sigmoid_binary_cross_entropy(logits, labels).sum(-1)
  labelled = jnp.sum(labels, -1) > 0
  total = jnp.sum(jnp.where(labelled, rows, 0))
  return total / jnp.maximum(jnp.sum(labelled), 1)


def directions(
  student: Float[Array, "n *p d"], target: Float[Array, "n *p d"]
) -> Scalar:
  """||s / |s| - t / |t| ||^2, summed over positions, mean over examples.

  ScaleKD's feature loss (arXiv:2411.06786, eq. 5; the authors' code sums).
  """
  gap = jnp.square(_unit(student) - _unit(target))
  return jnp.sum(gap) / student.shape[0]


def without_mean(x: Float[Array, "n p d"]) -> Float[Array, "n p d"]:
  """Every channel minus its mean over the positions.

  ScaleKD's alternative view: it removes the coefficient (0, 0) of each
  channel's discrete cosine transform, which is this mean.
  """
  return x - jnp.mean(x, axis=1, keepdims=True)


def angle(student: Float[Array, "n d"], target: Float[Array, "n d"]) -> Scalar:
  """Mean of arccos(<s, t> / (||s|| ||t|| + 1e-8)), in radians.

  The cosine is kept 1e-7 away from +-1, where arccos has no derivative.
  """
  inner = jnp.sum(student * target, axis=-1)
  cosine = inner / (_norm(student) * _norm(target) + 1e-8)
  return jnp.mean(jnp.arccos(jnp.clip(cosine, -1 + 1e-7, 1 - 1e-7)))


def rkd(
  student: Float[Array, "n s"],
  teacher: Float[Array, "n t"],
  *,
  distance_weight: float = 25.0,
  angle_weight: float = 50.0,
) -> Scalar:
  """Relations between rows: their distances, and angles of their triplets.

  Park et al., Relational Knowledge Distillation, CVPR 2019. Distances are
  divided by their mean; both terms are smooth L1 (beta 1), averaged over all
  n^2 and n^3 entries.

  Raises:
    ValueError: fewer than two rows.
  """
  if student.shape[0] < 2:
    raise ValueError(
      f"rkd compares rows with each other; got {student.shape[0]}, needs at "
      "least 2: use a larger batch"
    )
  distance = optax.huber_loss(_relative(student), _relative(teacher))
  angles = optax.huber_loss(_angles(student), _angles(teacher))
  return distance_weight * jnp.mean(distance) + angle_weight * jnp.mean(angles)


def pairwise_distance(x: Float[Array, "n d"]) -> Float[Array, "n n"]:
  """Euclidean distances of rows; at least 1e-6 off the diagonal."""
  square = jnp.sum(jnp.square(x), axis=-1)
  inner = jnp.matmul(x, x.T, precision=_HIGHEST)
  distance = jnp.sqrt(jnp.maximum(square[:, None] + square - 2 * inner, 1e-12))
  return jnp.where(jnp.eye(x.shape[0], dtype=bool), 0.0, distance)


def fsp(
  student: Sequence[Float[Array, "n h w c"]],
  teacher: Sequence[Float[Array, "n h w c"]],
) -> Float[Array, " pairs"]:
  """Mean squared difference of the Gram matrices of consecutive maps.

  Yim et al., A Gift from Knowledge Distillation, CVPR 2017.

  Raises:
    ValueError: fewer than two maps, or lists of different length.
  """
  if len(student) < 2 or len(student) != len(teacher):
    raise ValueError(
      f"fsp pairs consecutive maps: got {len(student)} of the student and "
      f"{len(teacher)} of the teacher; give both the same number, >= 2"
    )
  return jnp.stack(
    [
      mse(fsp_matrix(*s), fsp_matrix(*t))
      for s, t in zip(
        zip(student, student[1:], strict=False),
        zip(teacher, teacher[1:], strict=False),
        strict=True,
      )
    ]
  )


def fsp_matrix(
  previous: Float[Array, "n h w a"], following: Float[Array, "n i j b"]
) -> Float[Array, "n b a"]:
  """Mean over pixels of following_b previous_a, both at the smaller size."""
  size = tuple(
    min(p, f)
    for p, f in zip(previous.shape[1:3], following.shape[1:3], strict=True)
  )
  previous, following = (adaptive_mean(x, size) for x in (previous, following))
  gram = jnp.einsum("nhwb,nhwa->nba", following, previous, precision=_HIGHEST)
  return gram / (size[0] * size[1])


def adaptive_mean(
  x: Float[Array, "n h w c"], size: tuple[int, ...]
) -> Float[Array, "n i j c"]:
  """Average pooling to `size`; window i is [floor(ih/I), ceil((i+1)h/I))."""
  rows, columns = (
    _windows(full, out).astype(x.dtype)
    for full, out in zip(x.shape[1:3], size, strict=True)
  )
  return jnp.einsum("ih,jw,nhwc->nijc", rows, columns, x, precision=_HIGHEST)


def _windows(full: int, out: int) -> np.ndarray:
  """(out, full) averaging weights of adaptive pooling."""
  start = np.arange(out) * full // out
  stop = -(-(np.arange(out) + 1) * full // out)
  at = np.arange(full)
  inside = (at >= start[:, None]) & (at < stop[:, None])
  return inside / inside.sum(axis=1, keepdims=True)


def _kl_rows(student: Array, teacher: Array, temperature: float) -> Array:
  log_s = jax.nn.log_softmax(student / temperature)
  log_t = jax.nn.log_softmax(teacher / temperature)
  return temperature**2 * jnp.sum(jnp.exp(log_t) * (log_t - log_s), axis=-1)


def _norm(x: Array) -> Array:
  """Length along the last axis, with derivative 0 at zero."""
  square = jnp.sum(jnp.square(x), axis=-1)
  positive = square > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def _unit(x: Array) -> Array:
  return x / jnp.maximum(_norm(x), 1e-12)[..., None]


def _relative(x: Array) -> Array:
  distance = pairwise_distance(x)
  pairs = x.shape[0] * (x.shape[0] - 1)
  return distance / (jnp.sum(distance) / pairs)


def _angles(x: Array) -> Array:
  edge = _unit(x[None] - x[:, None])
  return jnp.einsum("ijd,ikd->ijk", edge, edge, precision=_HIGHEST)
