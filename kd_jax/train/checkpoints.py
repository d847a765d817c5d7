"""Checkpoints on a disk through Orbax; the only file that imports it.

Each step holds the train state (parameters, statistics, optimizer, step,
random key, moving average) and a JSON record (data position, teacher). Those of
buckets are in `bucket.checkpoints`, as Orbax 0.12 knows gs:// but not s3://.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging as python_logging
import os
import shutil
import sys
import textwrap
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from kd_jax import disk

T = TypeVar("T")
_ORBAX = f"{os.sep}orbax{os.sep}"
# Orbax has one event loop for all threads, on which two of them lock up.
_turns = threading.RLock()


class Checkpoints:
  """The checkpoints of one run, newest last.

  Args:
    directory: where they live; created when missing.
    keep: how many of the newest are kept.

  Raises:
    ValueError: `keep` is below 1; later, whenever the disk refuses a write.
  """

  def __init__(self, directory: Path | str, *, keep: int = 2) -> None:
    check_keep(keep)
    policy = checkpoint_managers.AnyPreservationPolicy(
      [checkpoint_managers.LatestN(keep)]
    )
    options = ocp.CheckpointManagerOptions(
      preservation_policy=policy,
      cleanup_tmp_directories=True,
      enable_async_checkpointing=True,
    )
    _drop_late_reports()
    self._directory = Path(directory).absolute()
    self._size = 0  # of one checkpoint, in bytes; 0 before the first
    handlers = {
      "state": ocp.StandardCheckpointHandler(),
      "record": ocp.JsonCheckpointHandler(),
    }
    with self._writing():
      self._manager = ocp.CheckpointManager(
        self._directory, options=options, item_handlers=handlers
      )

  @property
  def directory(self) -> Path:
    """Where they live."""
    return self._directory

  def save(self, step: int, state: Any, record: Mapping[str, Any]) -> None:
    """Starts an asynchronous save; a step that exists is left alone."""
    if step in self._manager.all_steps():
      return
    tree = as_dict(state)
    notes = {"record": dict(record), "checksum": checksum(tree)}
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(notes)
    )
    self._size = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    with self._writing():
      # Forced: otherwise a step older than the newest is skipped in silence.
      self._manager.save(step, args=items, force=True)
      if threading.current_thread() is not threading.main_thread():
        self._manager.wait_until_finished()

  def steps(self) -> list[int]:
    """Finished checkpoints, oldest first."""
    return sorted(self._manager.all_steps())

  def record(self, step: int) -> dict[str, Any]:
    """The JSON record of a step."""
    return dict(self._notes(step)["record"])

  def newest_record(self) -> dict[str, Any] | None:
    """The JSON record of the newest step whose record can be read."""
    for step in reversed(self.steps()):
      with contextlib.suppress(Exception):  # damaged, in one of many ways
        return self.record(step)
    return None

  def _notes(self, step: int) -> Mapping[str, Any]:
    items = ocp.args.Composite(record=ocp.args.JsonRestore())
    with _turns:
      return self._manager.restore(step, args=items)["record"]

  def restore(self, step: int, like: Any) -> Any:
    """The state of a step, with the shapes, dtypes and layout of `like`.

    Raises:
      MismatchError: names, shapes or dtypes differ from those of `like`.
      Exception: of many types, where a file is damaged.
    """
    target = as_dict(like)
    saved = self._manager.item_metadata(step)["state"]
    if saved is None:
      raise ValueError("its metadata cannot be read")
    check_same(shapes(target), shapes(saved), f"{self._directory}/{step}")
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
    items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
    with _turns:
      restored = self._manager.restore(step, args=items)["state"]
    if checksum(restored) != self._notes(step)["checksum"]:
      raise ValueError("its arrays are not those that were saved")
    return dataclasses.replace(like, **restored)

  def set_aside(self, step: int) -> Path:
    """Renames a damaged step, so that its number can be saved again."""
    aside = self._directory / f"damaged-{step}"
    if jax.process_index() == 0:
      shutil.rmtree(aside, ignore_errors=True)
      (self._directory / str(step)).rename(aside)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f"set aside {step}")
    self._manager.reload()
    return aside

  def preempted(self, step: int) -> bool:
    """Whether every process has agreed to stop at this step."""
    return self._manager.reached_preemption(step)

  def wait(self) -> None:
    """Blocks until the last save is on disk."""
    with self._writing():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits and lets go of background threads."""
    with self._writing():
      self._manager.close()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      with _turns:
        yield
    except jax.errors.JaxRuntimeError as error:
      if jax.process_count() > 1 and "RESOURCE_EXHAUSTED" not in str(error):
        raise
      raise self._refused(error) from error
    except (OSError, ValueError) as error:
      raise self._refused(error) from error

  def _refused(self, error: Exception) -> ValueError:
    head = f"no checkpoint can be written to {self._directory}"
    if disk.code(error) in disk.FULL:
      why = disk.reason(error, self._directory, self._size)
      return ValueError(f"{head} ({why}). {disk.fix(error)}")
    return ValueError(
      f"{head} ({line_of(error)}). Make room or give it write permission, then "
      "run the same command again."
    )


def check_keep(keep: int) -> None:
  """Whether so many checkpoints can be kept.

  Raises:
    ValueError: they are none.
  """
  if keep < 1:
    raise ValueError(
      f"checkpoint.keep is {keep}; at least 1 has to be kept, and 2 survive "
      "a damaged file"
    )


class MismatchError(ValueError):
  """A checkpoint that belongs to another experiment."""


def checksum(tree: Any) -> int:
  """CRC-32 of all arrays, the same however they are spread over devices.

  Orbax stores arrays without one.
  """
  found = 0
  for leaf in jax.tree.leaves(tree):
    whole = np.ascontiguousarray(_whole(leaf))
    # NumPy's stubs say from Python 3.12 on that arrays are buffers.
    found = zlib.crc32(whole, found)  # pyright: ignore[reportArgumentType]
  return found


def _whole(array: Any) -> np.ndarray:
  apart = isinstance(array, jax.Array) and not (
    array.is_fully_addressable or array.is_fully_replicated
  )
  if apart:
    return multihost_utils.process_allgather(array, tiled=True)
  return np.asarray(array)


def newest(checkpoints: Checkpoints, read: Callable[[int], T]) -> T | None:
  """`read(step)` of the newest checkpoint that can be read, else None.

  Damaged ones are named and passed over; they are set aside as soon as an
  older one proves to be whole.

  Raises:
    MismatchError: a checkpoint is whole, but of another experiment.
    ValueError: there are checkpoints, and every one is damaged.
  """
  damaged: list[int] = []
  reason = ""
  for step in reversed(checkpoints.steps()):
    try:
      found = read(step)
    except MismatchError:
      raise
    except Exception as error:  # Orbax and TensorStore raise many types.
      reason = line_of(error)
      logging.warning("checkpoint %d is damaged (%s), going back", step, reason)
      damaged.append(step)
      continue
    for bad in damaged:
      logging.warning("moved it to %s", checkpoints.set_aside(bad))
    return found
  if damaged:
    raise ValueError(
      f"none of the checkpoints {sorted(damaged)} in {checkpoints.directory} "
      f"can be read (the oldest: {reason}). Bring the files back, or delete "
      "the folder to start again from step 0."
    )
  return None


def read_newest(directory: Path | str) -> dict[str, Any] | None:
  """The newest state of a run that may still be going on; only reads.

  Returns:
    The fields of the `TrainState`, nested dicts of NumPy arrays whatever
    devices they were saved from; None without a checkpoint.

  Raises:
    ValueError: there are checkpoints, and every one is damaged.
  """
  folder = Path(directory).absolute()
  steps = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
  return newest_of(steps, lambda step: _read(folder / str(step)), str(folder))


def newest_of(
  steps: Sequence[int], read: Callable[[int], T], where: str
) -> T | None:
  """`read(step)` of the newest step that can be read, else None.

  Args:
    steps: that there are.
    read: a step.
    where: they are, for the message.

  Raises:
    ValueError: there are steps, and every one is damaged.
  """
  reason = ""
  for step in sorted(steps, reverse=True):
    try:
      return read(step)
    except Exception as error:  # Orbax and TensorStore raise many types.
      reason = line_of(error)
      logging.warning("checkpoint %d is damaged (%s), going back", step, reason)
  if steps:
    raise ValueError(
      f"none of the checkpoints {sorted(steps)} in {where} can be read "
      f"(the oldest: {reason})"
    )
  return None


def _read(step: Path) -> dict[str, Any]:
  handler = ocp.CompositeCheckpointHandler(
    state=ocp.PyTreeCheckpointHandler(), record=ocp.JsonCheckpointHandler()
  )
  with ocp.Checkpointer(handler) as checkpointer:
    saved = checkpointer.metadata(step).item_metadata["state"].tree
    kinds = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved
    )
    items = ocp.args.Composite(
      state=ocp.args.PyTreeRestore(restore_args=kinds),
      record=ocp.args.JsonRestore(),
    )
    found = checkpointer.restore(step, args=items)
  if checksum(found["state"]) != found["record"]["checksum"]:
    raise ValueError("its arrays are not those that were saved")
  return dict(found["state"])


@functools.cache
def _drop_late_reports() -> None:
  """Keeps failed reads and writes from printing tracebacks by the dozen.

  Orbax closes its event loop on the first failure; whatever TensorStore still
  has under way then reports to the closed loop, from threads of its own, or
  to nobody. Orbax's own threads log each error before they hand it on.
  """
  asyncio_log = python_logging.getLogger("asyncio")
  asyncio_log.addFilter(lambda r: "never retrieved" not in r.getMessage())
  absl_log = python_logging.getLogger("absl")
  absl_log.addFilter(lambda r: not (r.exc_info and _ORBAX in r.pathname))
  hook = sys.unraisablehook

  def drop(found: Any) -> None:
    if str(found.exc_value) != "Event loop is closed":
      hook(found)

  sys.unraisablehook = drop


def line_of(error: Exception) -> str:
  """The first line of what an error says."""
  lines = [line for line in str(error).splitlines() if line.strip()]
  return textwrap.shorten(lines[0], 200) if lines else type(error).__name__


def as_dict(state: Any) -> dict[str, Any]:
  """{field: value} of a state."""
  return {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}


def check_same(
  want: Mapping[str, str], have: Mapping[str, str], where: str
) -> None:
  """Whether a checkpoint holds the `shapes` that this run wants.

  Orbax casts dtypes silently and buries shapes in pages of output.

  Raises:
    MismatchError: it does not.
  """
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


def shapes(tree: Any) -> dict[str, str]:
  """{path: 'float32[3, 4]'} of all arrays."""
  tree = getattr(tree, "tree", tree)
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): (
      f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
    )
    for path, leaf in leaves
    if hasattr(leaf, "shape")
  }
