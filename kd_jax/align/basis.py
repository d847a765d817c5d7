"""Principal directions of teacher features, fitted in one pass.

KDEP (CVPR 2022) takes the SVD of the N x D matrix of centred features. Its
right singular vectors and singular values are the eigenvectors and the roots
of the eigenvalues of the D x D scatter matrix, which this file accumulates
batch by batch: memory does not grow with N, and `update` is plain jnp, so it
runs inside the jitted teacher forward pass and is all-reduced by XLA when the
batch is sharded.

Rows are taken about a fixed shift (the mean of the first batch), products are
full float32, and batches are added as pairs of float32 (two-sum), so that the
sum over a data set is as exact as the products are: every eigenvalue to about
1e-7 of the first. Only the lower triangle is kept, in slabs of rows, which
halves memory and work.

Example:
  state = basis.init(2048)
  step = jax.jit(basis.update, donate_argnums=0)
  for batch in data:
    state = step(state, features(batch), batch.mask)
  basis.save(path, basis.finish(state, fingerprint))
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from kd_jax import disk
from kd_jax.buckets import spool

SLAB = 256


@struct.dataclass
class ScatterState:
  """Running sums over the rows seen so far; donate it to `update`.

  Attributes:
    count: int32, number of rows.
    shift: (D,) about which rows are taken; the mean of the first batch.
    total, total_low: (D,) sum of shifted rows, and its rounding error.
    scatter, scatter_low: sum of outer products of shifted rows, and its
      rounding error; slabs of SLAB rows of the lower triangle, the k-th one
      as wide as the rows down to its last.
  """

  count: Int[Array, ""]
  shift: Float[Array, " d"]
  total: Float[Array, " d"]
  total_low: Float[Array, " d"]
  scatter: tuple[Float[Array, "slab k"], ...]
  scatter_low: tuple[Float[Array, "slab k"], ...]


@dataclasses.dataclass(frozen=True)
class Basis:
  """A fitted basis, on the host.

  Attributes:
    mean: (D,) float64 mean of the rows.
    basis: (D, D) float32, a direction per column, by descending variance;
      the entry of largest magnitude of each is positive.
    singular_values: (D,) float64 of the centred rows, not divided by
      sqrt(N).
    channel_variance: (D,) float64, unbiased, of the raw channels.
    count: number of rows.
    fingerprint: says which teacher, layer and data it was fitted on.
  """

  mean: np.ndarray
  basis: np.ndarray
  singular_values: np.ndarray
  channel_variance: np.ndarray
  count: int
  fingerprint: str = ""

  def artifact(self, width: int) -> dict[str, np.ndarray]:
    """The float32 arrays that an aligner to `width` channels reads.

    Raises:
      ValueError: fewer rows were seen than directions are asked for.
    """
    check_rows(self.count, width, self.mean.size)
    kept = min(width, self.mean.size)
    return {
      "mean": self.mean.astype(np.float32),
      "basis": np.ascontiguousarray(self.basis[:, :kept]),
      "singular_values": self.singular_values[:kept].astype(np.float32),
      "channel_variance": self.channel_variance.astype(np.float32),
    }


def init(dim: int) -> ScatterState:
  """The state before any row of `dim` channels."""
  # Arrays of their own: shared ones could not be donated.
  return ScatterState(
    count=jnp.zeros((), jnp.int32),
    shift=jnp.zeros((dim,), jnp.float32),
    total=jnp.zeros((dim,), jnp.float32),
    total_low=jnp.zeros((dim,), jnp.float32),
    scatter=tuple(jnp.zeros((j - i, j), jnp.float32) for i, j in slabs(dim)),
    scatter_low=tuple(
      jnp.zeros((j - i, j), jnp.float32) for i, j in slabs(dim)
    ),
  )


def slabs(dim: int) -> list[tuple[int, int]]:
  """(first row, row after the last) of each slab of a `dim` x `dim` matrix."""
  return [(i, min(i + SLAB, dim)) for i in range(0, dim, SLAB)]


def update(
  state: ScatterState,
  features: Float[Array, "n d"],
  mask: Float[Array, " n"],
) -> ScatterState:
  """Adds the rows of `features` whose `mask` is not 0.

  Raises:
    ValueError: features of another width than the state's.
  """
  if features.ndim != 2 or features.shape[1] != state.shift.shape[0]:
    raise ValueError(
      f"features are (rows, {state.shift.shape[0]}) here; got "
      f"{features.shape}. Pool maps first, or start from init(width)."
    )
  kept = mask != 0
  rows = jnp.sum(kept, dtype=jnp.int32)
  # Not a product with the mask: padding may be NaN.
  x = jnp.where(kept[:, None], features.astype(jnp.float32), 0.0)
  first = jnp.sum(x, axis=0) / jnp.maximum(rows, 1).astype(jnp.float32)
  shift = jnp.where(state.count == 0, first, state.shift)
  x = jnp.where(kept[:, None], x - shift, 0.0)
  scatter, scatter_low = [], []
  for (i, j), high, low in zip(
    slabs(x.shape[1]), state.scatter, state.scatter_low, strict=True
  ):
    product = jnp.matmul(
      x[:, i:j].T, x[:, :j], precision=jax.lax.Precision.HIGHEST
    )
    high, error = _two_sum(high, product)
    scatter.append(high)
    scatter_low.append(low + error)
  total, total_error = _two_sum(state.total, jnp.sum(x, axis=0))
  return ScatterState(
    count=state.count + rows,
    shift=shift,
    total=total,
    total_low=state.total_low + total_error,
    scatter=tuple(scatter),
    scatter_low=tuple(scatter_low),
  )


def finish(state: ScatterState, fingerprint: str = "") -> Basis:
  """The basis of all rows seen; float64, on the host.

  The state is consumed, as if donated: its device memory is given back
  before the eigenvectors need theirs.

  Raises:
    ValueError: fewer than two rows, features that are not finite or all the
      same, or a state that was finished before.
  """
  if state.count.is_deleted():
    raise ValueError("this state was finished before; start from init(width)")
  count = int(state.count)
  check_rows(count, 1, state.shift.size)
  total = np.asarray(state.total, np.float64) + np.asarray(state.total_low)
  mean = np.asarray(state.shift, np.float64) + total / count
  scatter = _lower_triangle(state, total / np.sqrt(count))
  jax.tree.map(lambda x: x.delete(), state)
  if not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
    raise ValueError(
      f"the features of {count} rows hold NaN or infinity (or overflow "
      "float32 when squared); check the teacher's weights and its input range"
    )
  import scipy.linalg

  variance = np.diag(scatter).copy() / (count - 1)
  if not variance.any():
    raise ValueError(
      f"the teacher's feature is the same in all {count} rows, so there is "
      "nothing to learn from it; give the teacher trained weights, or take "
      "another one"
    )
  values, vectors = scipy.linalg.eigh(
    scatter.T,
    lower=False,
    overwrite_a=True,
    check_finite=False,
    driver="evr",
  )
  del scatter
  return Basis(
    mean=mean,
    basis=_oriented(vectors),
    singular_values=np.sqrt(np.maximum(values[::-1], 0.0)),
    channel_variance=np.maximum(variance, 0.0),
    count=count,
    fingerprint=fingerprint,
  )


def explained(basis: Basis, width: int) -> float:
  """Share of the variance in the leading `width` directions."""
  energy = np.square(basis.singular_values)
  return float(energy[:width].sum() / energy.sum())


def check_rows(count: int, width: int, dim: int) -> None:
  """Whether `count` rows determine `width` directions of `dim` channels.

  Raises:
    ValueError: they do not; centred rows span one direction less than rows.
  """
  needed = min(width, dim) + 1
  if count < needed:
    raise ValueError(
      f"{count} rows cannot determine {min(width, dim)} directions; fit on "
      f"at least {needed} (many times the width is sensible)"
    )


def save(path: str | Path, basis: Basis) -> None:
  """Writes `basis` as .npz; the file is either whole or not there.

  Raises:
    ValueError: the disk is full.
  """
  path = Path(path)
  # In memory first: a ZIP file that cannot be ended complains once more.
  file = io.BytesIO()
  np.savez(file, **vars(basis))
  path.parent.mkdir(parents=True, exist_ok=True)
  disk.write(path, file.getvalue())


def load(path: str | Path, fingerprint: str | None = None) -> Basis:
  """Reads a basis; with `fingerprint`, only one that carries it.

  Raises:
    ValueError: no such file, a damaged one, or another fingerprint.
  """
  path = Path(path)
  if not path.is_file():
    raise ValueError(f"there is no basis at {path}; run the fit_svd task")
  try:
    # np.load leaves a file open that it opened itself and cannot read.
    with path.open("rb") as handle, np.load(handle) as file:
      fields = {f.name: file[f.name] for f in dataclasses.fields(Basis)}
  except Exception as error:  # numpy and zipfile raise nine kinds
    raise ValueError(
      f"{spool.address(path)} is not a whole basis ({error}); delete it and "
      "run the fit_svd task again"
    ) from error
  fields["count"] = int(fields["count"])
  fields["fingerprint"] = str(fields["fingerprint"])
  basis = Basis(**fields)
  if fingerprint is not None and basis.fingerprint != fingerprint:
    raise ValueError(
      f"{spool.address(path)} was fitted for {basis.fingerprint!r}, this run "
      f"needs {fingerprint!r}; delete the file to fit again or point to another"
    )
  return basis


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
  """The rounded sum, and exactly what rounding took off (Knuth)."""
  total = a + b
  part = total - a
  return total, (a - (total - part)) + (b - part)


def _lower_triangle(state: ScatterState, root: np.ndarray) -> np.ndarray:
  """High + low - root root^T in float64; slabs are deleted as they are read.

  What lies above the diagonal means nothing (and is hardly ever touched).
  """
  scatter = np.zeros((root.size, root.size))
  for (i, j), high, low in zip(
    slabs(root.size), state.scatter, state.scatter_low, strict=True
  ):
    slab = scatter[i:j, :j]
    slab += np.asarray(high)
    slab += np.asarray(low)
    for row, factor in zip(slab, root[i:j], strict=True):
      row -= factor * root[:j]
    high.delete()
    low.delete()
  return scatter


def _oriented(vectors: np.ndarray) -> np.ndarray:
  """Columns in reverse, float32, largest entry of each positive."""
  basis = vectors[:, ::-1].astype(np.float32)
  largest = np.argmax(np.abs(basis), axis=0)
  signs = np.sign(basis[largest, np.arange(basis.shape[1])])
  basis *= signs
  return basis


def placeholder(*, dim: int, width: int) -> dict[str, np.ndarray]:
  """An artifact of the right shapes that knows nothing, for timing."""
  kept = min(width, dim)
  return {
    "mean": np.zeros(dim, np.float32),
    "basis": np.eye(dim, kept, dtype=np.float32),
    "singular_values": np.ones(kept, np.float32),
    "channel_variance": np.ones(dim, np.float32),
  }
