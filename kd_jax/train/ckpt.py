"""Checkpoints through Orbax; the only file that imports it.

Each step holds the train state (parameters, statistics, optimizer, step,
random key, moving average) and a JSON record (data position, phase).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers

T = TypeVar("T")


class Checkpoints:
  """The checkpoints of one run, newest last.

  Args:
    directory: where they live; created when missing.
    keep: how many of the newest are kept.
  """

  def __init__(self, directory: Path | str, *, keep: int = 2) -> None:
    policy = checkpoint_managers.AnyPreservationPolicy(
      [checkpoint_managers.LatestN(keep)]
    )
    options = ocp.CheckpointManagerOptions(
      preservation_policy=policy,
      cleanup_tmp_directories=True,
      enable_async_checkpointing=True,
    )
    self._directory = Path(directory).absolute()
    handlers = {
      "state": ocp.StandardCheckpointHandler(),
      "record": ocp.JsonCheckpointHandler(),
    }
    self._manager = ocp.CheckpointManager(
      self._directory, options=options, item_handlers=handlers
    )

  def save(self, step: int, state: Any, record: Mapping[str, Any]) -> None:
    """Starts an asynchronous save; a step that exists is left alone."""
    if step in self._manager.all_steps():
      return
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(_as_dict(state)),
      record=ocp.args.JsonSave(dict(record)),
    )
    self._manager.save(step, args=items)

  def steps(self) -> list[int]:
    """Finished checkpoints, oldest first."""
    return sorted(self._manager.all_steps())

  def record(self, step: int) -> dict[str, Any]:
    """The JSON record of a step."""
    items = ocp.args.Composite(record=ocp.args.JsonRestore())
    return dict(self._manager.restore(step, args=items)["record"])

  def restore(self, step: int, like: Any) -> Any:
    """The state of a step, with the shapes, dtypes and layout of `like`.

    Raises:
      MismatchError: names, shapes or dtypes differ from those of `like`.
    """
    target = _as_dict(like)
    saved = self._manager.item_metadata(step)["state"]
    _check_same(target, saved, f"{self._directory}/{step}")
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
    items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
    restored = self._manager.restore(step, args=items)["state"]
    return dataclasses.replace(like, **restored)

  def preempted(self, step: int) -> bool:
    """Whether every process has agreed to stop at this step."""
    return self._manager.reached_preemption(step)

  def wait(self) -> None:
    """Blocks until the last save is on disk; raises what went wrong in it."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits and lets go of background threads."""
    self._manager.close()


class MismatchError(ValueError):
  """A checkpoint that belongs to another experiment."""


def newest(checkpoints: Checkpoints, read: Callable[[int], T]) -> T | None:
  """`read(step)` of the newest checkpoint that can be read, else None.

  A damaged one is named and passed over.

  Raises:
    MismatchError: a checkpoint is whole, but of another experiment.
  """
  for step in reversed(checkpoints.steps()):
    try:
      return read(step)
    except MismatchError:
      raise
    except Exception as error:  # Orbax and TensorStore raise many types.
      reason = str(error).splitlines()[0]
      logging.warning("checkpoint %d is damaged (%s), going back", step, reason)
  return None


def _as_dict(state: Any) -> dict[str, Any]:
  return {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}


def _check_same(target: Any, saved: Any, where: str) -> None:
  """Orbax casts dtypes silently and buries shapes in pages of output."""
  want, have = _shapes(target), _shapes(saved)
  wrong = [
    f"{path}: checkpoint {have.get(path, 'absent')}, "
    f"this run {want.get(path, 'absent')}"
    for path in sorted(set(want) | set(have))
    if want.get(path) != have.get(path)
  ]
  if wrong:
    raise MismatchError(
      f"checkpoint {where} does not fit this run ({len(wrong)} differences: "
      f"{'; '.join(wrong[:5])}). Use another --workdir, or start from its "
      "weights alone with --config.init_from."
    )


def _shapes(tree: Any) -> dict[str, str]:
  tree = getattr(tree, "tree", tree)
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): (
      f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
    )
    for path, leaf in leaves
    if hasattr(leaf, "shape")
  }
