"""The best weights of a phase, handed on at its end.

A phase with a `judge` is evaluated now and then; the train state keeps what had
the lowest value so far, so that a resumed run knows it too. Only what the phase
trains is kept: its leaves, and all batch statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kd_jax import trees
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.types import Phase, TrainState


def start(
  state: TrainState, phase: Phase, settings: step_lib.Settings
) -> TrainState:
  """The state before the first evaluation of `phase`."""
  if not phase.judge:
    return state
  return state.replace(best=_kept(state, phase, np.inf, settings))


def keep(
  state: TrainState,
  phase: Phase,
  values: Mapping[str, float],
  settings: step_lib.Settings,
) -> TrainState:
  """Remembers the weights of `state` if an evaluation found them best.

  Args:
    state: that was evaluated.
    phase: which it is in.
    values: the evaluation's {'eval/<metric>': value}.
    settings: of the train step.

  Raises:
    ValueError: the judging metric is not finite.
  """
  if not phase.judge:
    return state
  value = np.float32(values[f"eval/{phase.judge}"])
  if not np.isfinite(value):
    raise ValueError(
      f"eval/{phase.judge} is {value} in phase {phase.name!r}: training has "
      "diverged. Lower --config.optim.lr, or set --config.optim.clip_norm."
    )
  if value >= np.asarray(state.best["value"]):
    return state
  return state.replace(best=_kept(state, phase, value, settings))


def hand_on(state: TrainState) -> TrainState:
  """The state with its best weights, which it then forgets."""
  if not state.best:
    return state
  return state.replace(
    params=trees.overlay(state.params, state.best["params"]),
    stats=state.best["stats"],
    best={},
  )


def _kept(
  state: TrainState,
  phase: Phase,
  value: float | np.float32,
  settings: step_lib.Settings,
) -> dict[str, Any]:
  assert settings.mesh is not None
  kept = {
    "value": np.float32(value),
    "params": step_lib.trainable(state.params, phase),
    "stats": state.stats,
  }
  # Copied: the step overwrites the state's own arrays.
  return mesh_lib.place(kept, settings.mesh, fsdp=settings.fsdp)
