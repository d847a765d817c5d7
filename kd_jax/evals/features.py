"""Features of a whole data set, the input of the small evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Int

from kd_jax import types


class Features(NamedTuple):
  """Features and labels of a data set, on the host.

  Attributes:
    feature: one row per image.
    label: class of each row; -1 where it is unknown.
  """

  feature: Float[np.ndarray, "n d"]
  label: Int[np.ndarray, " n"]


def extract(
  apply: Callable[[Any], types.Taps],
  batches: Iterable[types.Batch],
  tap: str,
) -> Features:
  """Runs a network over `batches` and keeps one tap of the rows with mask 1.

  Where outputs are spread over several processes every process receives all
  rows; host arrays of labels and masks then hold the rows of their process.

  Args:
    apply: jitted images -> {tap: array}.
    batches: a finite evaluation pass.
    tap: name of an (n, d) tap, such as 'pooled'.

  Raises:
    ValueError: there is no such tap, it is no vector per image, or there are
      no rows.
  """
  parts = [_rows(apply(batch.image), batch, tap) for batch in batches]
  if not any(len(part.label) for part in parts):
    raise ValueError(
      f"no rows to extract {tap!r} from: got {len(parts)} batches without a "
      "valid row; check the size of the evaluation split"
    )
  return Features(*map(np.concatenate, zip(*parts, strict=True)))


def check(train: Features, test: Features, name: str) -> None:
  """Refuses feature sets on which an evaluation would mean nothing.

  Raises:
    ValueError: labels are missing, widths differ, or values are not finite.
  """
  for split, (feature, label) in {"train": train, "test": test}.items():
    if not len(label):
      raise ValueError(f"{name} got no {split} rows; it needs at least one")
    if np.min(label) < 0:
      raise ValueError(
        f"{name} needs labels, and {np.sum(label < 0)} of {len(label)} {split} "
        "rows have none (label -1). Use labelled data for evaluation, or "
        "switch the evaluations off with --config.eval.evals=()"
      )
    if not np.isfinite(feature).all():
      raise ValueError(
        f"{name} got {split} features with NaN or infinite values; training "
        "has diverged: lower the learning rate or look at the loss terms"
      )
  if train.feature.shape[1] != test.feature.shape[1]:
    raise ValueError(
      f"{name} got {train.feature.shape[1]} train and "
      f"{test.feature.shape[1]} test dimensions; extract the same tap of the "
      "same network from both"
    )


def _rows(taps: types.Taps, batch: types.Batch, tap: str) -> Features:
  if tap not in taps:
    raise ValueError(f"no tap {tap!r}; the network returns {sorted(taps)}")
  output = taps[tap]
  if output.ndim != 2:
    raise ValueError(
      f"tap {tap!r} has shape {output.shape}; evaluations read one vector per "
      f"image (n, d): choose one of {[k for k in taps if taps[k].ndim == 2]}"
    )
  feature, label, mask = _to_host((output, batch.label, batch.mask))
  if not len(feature) == len(label) == len(mask):
    raise ValueError(
      f"tap {tap!r} has {len(feature)} rows, labels {len(label)}, mask "
      f"{len(mask)}; each process must pass the labels of its own images"
    )
  valid = mask > 0
  return Features(feature[valid].astype(np.float32), label[valid])


def _to_host(arrays: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
  output = arrays[0]
  if isinstance(output, jax.Array) and not output.is_fully_addressable:
    return tuple(
      multihost_utils.process_allgather(x, tiled=True) for x in arrays
    )
  return tuple(np.asarray(x) for x in arrays)
