"""The teacher's mean and principal directions, fitted in its forward pass."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kd_jax.align import basis as basis_lib
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import views
from kd_jax.types import Batch, TeacherSource


def fit(
  source: TeacherSource,
  frozen: Mapping[str, Any],
  tap: str,
  batches: Iterable[Batch],
  mesh: jax.sharding.Mesh,
  *,
  fingerprint: str,
  cut: views.Cut,
) -> basis_lib.Basis:
  """Fits the basis of one teacher tap in a single pass over `batches`.

  Raises:
    ValueError: no batch, too few rows, or features that are not finite.
  """
  # Every process reads the sums, so every one gets a copy.
  whole = mesh_lib.replicated(mesh)

  @functools.partial(jax.jit, donate_argnums=0, out_shardings=whole)
  def update(state, frozen, batch):
    seen = views.seen(batch, cut)
    return basis_lib.update(state, source(frozen, seen).taps[tap], seen.mask)

  state = None
  for local in batches:
    batch = mesh_lib.put_batch(local, mesh)
    if state is None:
      shapes = jax.eval_shape(
        lambda f, b: dict(source(f, views.seen(b, cut)).taps), frozen, batch
      )
      width = shapes[tap].shape[-1]
      state = mesh_lib.place(basis_lib.init(width), mesh)
    state = update(state, frozen, batch)
  if state is None:
    raise ValueError("there is no image to fit the SVD on; check config.data")
  return basis_lib.finish(state, fingerprint)


def load_or_fit(path: Path, fingerprint: str, fit_it: Any) -> basis_lib.Basis:
  """The basis at `path` if there is one, else a new one, saved there.

  Raises:
    ValueError: the file is damaged or belongs to another teacher or data.
  """
  if _same_everywhere(path.exists()):
    return basis_lib.load(path, fingerprint)
  found = fit_it(fingerprint)
  if jax.process_index() == 0:
    basis_lib.save(path, found)
  return found


def _same_everywhere(found: bool) -> bool:
  """What the first process says: all must fit together, or none."""
  if jax.process_count() == 1:
    return found
  return bool(multihost_utils.broadcast_one_to_all(np.asarray(found)))


def identity(*parts: str) -> str:
  """One fingerprint of teacher, layer, data and preprocessing."""
  return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
