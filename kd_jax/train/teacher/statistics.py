"""The teacher's mean and principal directions, fitted in its forward pass."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float

from kd_jax.align import basis as basis_lib
from kd_jax.align import maps
from kd_jax.interfaces import TeacherSource
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import views
from kd_jax.types import Array, Batch, Frozen

States = dict[str, basis_lib.ScatterState]
"""{tap: its running sums}."""


def scatter(
  source: TeacherSource,
  frozen: Frozen,
  taps: tuple[str, ...],
  batches: Iterable[Batch],
  mesh: jax.sharding.Mesh,
  *,
  cut: views.Cut,
) -> States:
  """Sums over the rows of teacher taps, in a single pass over `batches`.

  Every position of a map is a row; so is every patch among tokens.

  Raises:
    ValueError: no batch.
  """
  # Every process reads the sums, so every one gets a copy.
  whole = mesh_lib.replicated(mesh)

  @functools.partial(jax.jit, donate_argnums=0, out_shardings=whole)
  def update(states: States, frozen: Frozen, batch: Batch) -> States:
    seen = views.seen(batch, cut)
    found = source(frozen, seen).taps
    return {
      tap: basis_lib.update(state, *rows(found[tap], seen.mask))
      for tap, state in states.items()
    }

  states = None
  for local in batches:
    batch = mesh_lib.put_batch(local, mesh)
    if states is None:
      shapes = jax.eval_shape(
        lambda f, b: dict(source(f, views.seen(b, cut)).taps), frozen, batch
      )
      fresh = {tap: basis_lib.init(shapes[tap].shape[-1]) for tap in taps}
      states = mesh_lib.place(fresh, mesh)
    states = update(states, frozen, batch)
  if states is None:
    raise ValueError("there is no image to fit the SVD on; check config.data")
  return states


def rows(
  tap: Float[Array, "n *p d"], mask: Float[Array, " n"]
) -> tuple[Float[Array, "m d"], Float[Array, " m"]]:
  """The feature vectors of a tap, with the mask of each."""
  if tap.ndim == 2:
    return tap, mask
  tokens = maps.as_tokens(tap)
  count = tokens.shape[1]
  return tokens.reshape(-1, tokens.shape[-1]), jnp.repeat(mask, count)


def load_or_fit(
  path: Path, fingerprint: str, fit_it: Callable[[str], basis_lib.Basis]
) -> basis_lib.Basis:
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


def load_or_fit_all(
  paths: Mapping[str, Path],
  fingerprints: Mapping[str, str],
  fit_them: Callable[[tuple[str, ...]], Mapping[str, basis_lib.ScatterState]],
) -> dict[str, basis_lib.Basis]:
  """As `load_or_fit` for several taps; the missing ones in a single pass.

  Args:
    paths: {tap: file}.
    fingerprints: {tap: of what it has to belong to}.
    fit_them: taps -> {tap: ScatterState}.

  Raises:
    ValueError: a file is damaged or belongs to another teacher or data.
  """
  there = {t: _same_everywhere(path.exists()) for t, path in paths.items()}
  found = {
    tap: basis_lib.load(path, fingerprints[tap])
    for tap, path in paths.items()
    if there[tap]
  }
  missing = tuple(tap for tap in paths if not there[tap])
  states = fit_them(missing) if missing else {}
  for tap, state in states.items():
    found[tap] = basis_lib.finish(state, fingerprints[tap])
    if jax.process_index() == 0:
      basis_lib.save(paths[tap], found[tap])
  return {tap: found[tap] for tap in paths}


def _same_everywhere(found: bool) -> bool:
  """What the first process says: all must fit together, or none."""
  if jax.process_count() == 1:
    return found
  return bool(multihost_utils.broadcast_one_to_all(np.asarray(found)))


def identity(*parts: str) -> str:
  """One fingerprint of teacher, layer, data and preprocessing."""
  return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
