"""Which class was taken for which: counted on the device, judged on the host.

Rows are the truth, columns what was predicted. Counts are exact: a validation
set of Cityscapes has 10^9 pixels, which float32 cannot count and two of which
overflow int32; so a running count is a pair of uint32, low and high word.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt32

from kd_jax.types import Array

Matrix = Int[np.ndarray, "classes classes"]
"""Finished counts on the host, int64."""

_BLOCK = 4096  # Pixels per product of one-hots; float32 counts them exactly.
_TINY = 1e-10  # Of semseg's quotients.


class Counts(NamedTuple):
  """A confusion matrix that is still being counted: low + 2^32 high."""

  low: UInt32[Array, "classes classes"]
  high: UInt32[Array, "classes classes"]


def zero(classes: int) -> Counts:
  """Counts of nothing, on the device."""
  empty = jnp.zeros((classes, classes), jnp.uint32)
  return Counts(empty, empty)


def add(
  counts: Counts,
  prediction: Int[Array, "*shape"],
  label: Int[Array, "*shape"],
) -> Counts:
  """Adds a batch of less than 2^32 labels; for use inside a jitted function.

  Args:
    counts: of the batches before.
    prediction: classes, from 0 on.
    label: the truth, in any shape; -1 is ignored.
  """
  low = counts.low + batch_counts(prediction, label, len(counts.low))
  # A sum that is smaller than what went into it has lost 2^32.
  return Counts(low, counts.high + (low < counts.low))


def finished(counts: Counts) -> Matrix:
  """The counts as int64 on the host."""
  low, high = (np.asarray(word).astype(np.int64) for word in counts)
  return low + (high << 32)


def of(
  prediction: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"], classes: int
) -> Matrix:
  """The confusion matrix of answers on the host; labels of -1 are ignored."""
  known = label >= 0
  cells = label[known].astype(np.int64) * classes + prediction[known]
  return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def batch_counts(
  prediction: Int[Array, "*shape"], label: Int[Array, "*shape"], classes: int
) -> UInt32[Array, "classes classes"]:
  """The confusion matrix of one batch.

  CPUs and GPUs add into the cells one by one; a TPU, whose scatter is slow,
  multiplies blocks of one-hot rows. Both are exact.

  Args:
    prediction: classes, from 0 on.
    label: the truth; whatever is no class, -1 above all, is ignored.
    classes: their number.
  """
  prediction = prediction.reshape(-1).astype(jnp.int32)
  label = label.reshape(-1).astype(jnp.int32)
  known = (label >= 0) & (label < classes)
  label = jnp.where(known, label, classes)  # beyond the matrix: dropped
  return jax.lax.platform_dependent(
    prediction,
    label,
    tpu=lambda p, t: _multiplied(p, t, classes),
    default=lambda p, t: _scattered(p, t, classes),
  )


def _scattered(
  prediction: Int[Array, " n"], label: Int[Array, " n"], classes: int
) -> UInt32[Array, "classes classes"]:
  cells = jnp.zeros((classes, classes), jnp.uint32)
  return cells.at[label, prediction].add(1, mode="drop")


def _multiplied(
  prediction: Int[Array, " n"], label: Int[Array, " n"], classes: int
) -> UInt32[Array, "classes classes"]:
  fill = (0, -len(label) % _BLOCK)
  rows = jnp.pad(label, fill, constant_values=classes).reshape(-1, _BLOCK)
  columns = jnp.pad(prediction, fill).reshape(-1, _BLOCK)

  def block(
    total: UInt32[Array, "c c"], pair: tuple[Array, Array]
  ) -> tuple[UInt32[Array, "c c"], None]:
    truth, said = (jax.nn.one_hot(x, classes, dtype=jnp.bfloat16) for x in pair)
    found = jnp.einsum(
      "nt,np->tp", truth, said, preferred_element_type=jnp.float32
    )
    return total + found.astype(jnp.uint32), None

  empty = jnp.zeros((classes, classes), jnp.uint32)
  return jax.lax.scan(block, empty, (rows, columns))[0]


def iou(matrix: Matrix) -> Float[np.ndarray, " classes"]:
  """Intersection over union of every class, as in semseg.

  intersection / (union + 1e-10); so a class that occurs neither in the truth
  nor among the predictions has 0.
  """
  matrix = np.asarray(matrix, np.float64)
  hits = np.diag(matrix)
  return hits / (matrix.sum(0) + matrix.sum(1) - hits + _TINY)


def class_accuracy(matrix: Matrix) -> Float[np.ndarray, " classes"]:
  """Share of every class's samples that were found; 0 without samples."""
  matrix = np.asarray(matrix, np.float64)
  return np.diag(matrix) / (matrix.sum(1) + _TINY)


def segmentation(matrix: Matrix) -> dict[str, float]:
  """The figures of a segmentation, in [0, 1].

  Returns:
    'miou': mean IoU over all classes, the figure of the authors' semseg code
      (github.com/hszhao/semseg, tool/test.py). There an absent class counts
      as 0, which only shows on subsets: full validation sets have all classes.
    'miou_present': mean over the classes that occur in truth or predictions.
    'pixel_accuracy': share of the labelled pixels.
    'mean_class_accuracy': mean over all classes, absent ones as 0, as there.

  Raises:
    ValueError: no pixel has a label.
  """
  matrix = _counted(matrix, "pixel")
  found = iou(matrix)
  present = (matrix.sum(0) + matrix.sum(1)) > 0
  return {
    "miou": float(found.mean()),
    "miou_present": float(found[present].mean()),
    "pixel_accuracy": float(np.trace(matrix) / matrix.sum()),
    "mean_class_accuracy": float(class_accuracy(matrix).mean()),
  }


def classification(matrix: Matrix) -> dict[str, float]:
  """The figures of a classification, in [0, 1].

  Returns:
    'top1': share of the labelled samples.
    'mean_per_class': mean accuracy over the classes that have samples.

  Raises:
    ValueError: no sample has a label.
  """
  matrix = _counted(matrix, "sample")
  present = matrix.sum(1) > 0
  return {
    "top1": float(np.trace(matrix) / matrix.sum()),
    "mean_per_class": float(class_accuracy(matrix)[present].mean()),
  }


def _counted(matrix: Matrix, what: str) -> Matrix:
  matrix = np.asarray(matrix)
  if not matrix.sum():
    raise ValueError(
      f"no {what} of the test data has a label (all are -1), so nothing can be "
      "judged; name labelled data in --config.test"
    )
  return matrix
