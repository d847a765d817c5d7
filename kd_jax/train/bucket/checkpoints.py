"""Checkpoints in a bucket: every process writes its part, straight to it.

  checkpoints/120/arrays/params/student/conv1/kernel/   a zarr3 array
  checkpoints/120/process-00000-of-00004.json           the word of a process

Nothing is renamed: a step counts once every process has left its word, which
it does last. What a killed run began is deleted by the next one. Chunks are
the parts that devices hold, each with a CRC-32C, so that any number of
processes and devices can read what others wrote.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kd_jax import trees
from kd_jax.buckets import lease, spool, store
from kd_jax.train import checkpoints as disk_checkpoints
from kd_jax.train.bucket import arrays
from kd_jax.train.checkpoints import Checkpoints, checksum

_WORD = re.compile(r"(\d+)/process-(\d{5,})-of-(\d{5,})\.json")
_STEP = re.compile(r"(\d+)/")


def opened(directory: Path, *, keep: int) -> Checkpoints:
  """The checkpoints of a run, on a disk or in a bucket.

  Args:
    directory: where they live, which may be in the spool of a bucket.
    keep: how many of the newest are kept.

  Raises:
    ValueError: see `Checkpoints`; or the bucket cannot be reached.
  """
  if store.is_url(spool.address(directory)):
    return BucketCheckpoints(directory, keep=keep)
  return Checkpoints(directory, keep=keep)


class BucketCheckpoints(Checkpoints):
  """As `Checkpoints`, in the bucket of a spool.

  Args:
    directory: where they would live in the spool.
    keep: how many of the newest are kept.

  Raises:
    ValueError: `keep` is below 1, or the bucket cannot be reached; later,
      whenever it refuses.
  """

  def __init__(self, directory: Path, *, keep: int = 2) -> None:
    disk_checkpoints.check_keep(keep)
    self._spooled, self._keep = directory, keep
    self._url = spool.address(directory)
    self._pool = concurrent.futures.ThreadPoolExecutor(1)
    self._job: concurrent.futures.Future[None] | None = None
    if jax.process_index() == 0:
      # What a killed run has begun, to write or to delete.
      self._delete(set(_steps(self._url)) - set(_finished(self._url)))
      self._prune()
    self._together("checkpoints opened")
    self._steps = set(_finished(self._url))

  @property
  def directory(self) -> Any:
    """Where they live: a URL."""
    return self._url

  def save(self, step: int, state: Any, record: Mapping[str, Any]) -> None:
    """Starts an asynchronous save; a step that exists is left alone."""
    if step in self._steps:
      return
    self._finish()
    tree = disk_checkpoints.as_dict(state)
    flat = arrays.flat(tree)
    notes = {
      "record": dict(record),
      "checksum": checksum(tree),
      "fields": list(tree),
      "shapes": disk_checkpoints.shapes(tree),
      "chunks": {name: arrays.chunk(leaf) for name, leaf in flat.items()},
    }
    # On the host before the next step overwrites them.
    parts = {name: list(arrays.own(leaf)) for name, leaf in flat.items()}
    self._steps.add(step)
    self._job = self._pool.submit(self._write, step, parts, notes)

  def _write(
    self,
    step: int,
    parts: Mapping[str, list[arrays.Part]],
    notes: Mapping[str, Any],
  ) -> None:
    # What the metrics say up to here has to be there when the step counts.
    spool.push(self._spooled)
    lease.confirm()
    jobs = []
    for name, own in parts.items():
      if own:
        array = arrays.array(self._step(step), name, notes)
        jobs += [array[slices].write(data) for slices, data in own]
    for job in jobs:
      store.result(job, self._url)
    text = json.dumps(dict(notes)).encode()
    word = _word(step, jax.process_index(), jax.process_count())
    store.write(self._url, word, text)
    if jax.process_index() == 0:
      lease.confirm()
      self._prune(step)

  def _prune(self, newest: int | None = None) -> None:
    """Deletes what is too old, which what was just saved never is."""
    old = sorted(_finished(self._url))[: -self._keep]
    self._delete(step for step in old if step != newest)

  def _delete(self, steps: Iterable[int]) -> None:
    for step in steps:
      found = store.keys(store.join(self._url, str(step)))
      # First what makes it count.
      words = [key for key in found if _WORD.fullmatch(f"{step}/{key}")]
      for some in (words, found):
        store.delete(store.join(self._url, str(step)), some)

  def steps(self) -> list[int]:
    """Finished checkpoints, oldest first."""
    return sorted(_finished(self._url))

  def _step(self, step: int) -> str:
    return store.join(self._url, str(step))

  def _notes(self, step: int) -> Mapping[str, Any]:
    return _notes(self._url, step)

  def restore(self, step: int, like: Any) -> Any:
    """The state of a step, with the shapes, dtypes and layout of `like`.

    Raises:
      MismatchError: names, shapes or dtypes differ from those of `like`.
      ValueError: something is damaged.
    """
    target, notes = disk_checkpoints.as_dict(like), self._notes(step)
    disk_checkpoints.check_same(
      disk_checkpoints.shapes(target), notes["shapes"], f"{self._url}/{step}"
    )
    found, error = [], None
    try:
      found = arrays.restored(self._step(step), notes, target)
    except ValueError as damage:
      error = damage
    if not _everywhere(error is None):  # before they all count the checksum
      raise error or ValueError("another process cannot read its part")
    restored = jax.tree.unflatten(jax.tree.structure(target), found)
    if checksum(restored) != notes["checksum"]:
      raise ValueError("its arrays are not those that were saved")
    return dataclasses.replace(like, **restored)

  def set_aside(self, step: int) -> Any:
    """Copies a damaged step elsewhere, so that its number can be saved again.

    Returns:
      The URL of the copy.
    """
    old = store.join(self._url, str(step))
    aside = store.join(self._url, f"damaged-{step}")
    if jax.process_index() == 0:
      store.delete(aside, store.keys(aside))
      for key in store.keys(old):
        store.write(aside, key, store.read(old, key) or b"")
      self._delete([step])
    self._together(f"set aside {step}")
    self._steps.discard(step)
    return aside

  def preempted(self, step: int) -> bool:
    """Whether every process has agreed to stop at this step."""
    return bool(multihost_utils.reached_preemption_sync_point(step))

  def wait(self) -> None:
    """Blocks until the last save of all processes is in the bucket."""
    self._finish()
    self._together("checkpoint written")
    if jax.process_count() > 1 and jax.process_index() == 0:
      with self._writing():
        self._prune()  # another may have been the last to finish

  def close(self) -> None:
    """Waits for this process and lets go of its thread."""
    try:
      self._finish()
    finally:
      self._pool.shutdown()

  def _finish(self) -> None:
    job, self._job = self._job, None
    if job is not None:
      with self._writing():
        job.result()

  def _together(self, what: str) -> None:
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(what)

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except store.BucketError as error:
      raise ValueError(
        f"no checkpoint can be written to {self._url}: {error}"
      ) from error


def read_newest(directory: Path) -> dict[str, Any] | None:
  """As `checkpoints.read_newest`, also in the spool of a bucket.

  Raises:
    ValueError: there are checkpoints, and every one is damaged.
  """
  url = spool.address(directory)
  if not store.is_url(url):
    return disk_checkpoints.read_newest(directory)
  steps = sorted(_finished(url))
  return disk_checkpoints.newest_of(steps, lambda step: _read(url, step), url)


def _read(url: str, step: int) -> dict[str, Any]:
  """A state as nested dicts of NumPy arrays."""
  notes = _notes(url, step)
  jobs = {
    name: arrays.array(store.join(url, str(step)), name, notes).read()
    for name in notes["chunks"]
  }
  flat = {name: np.asarray(store.result(j, url)) for name, j in jobs.items()}
  # In the order of saving, as the checksum wants it.
  if checksum(list(flat.values())) != notes["checksum"]:
    raise ValueError("its arrays are not those that were saved")
  return {**dict.fromkeys(notes["fields"], {}), **trees.unflatten(flat)}


def discard(directory: Path) -> None:
  """Deletes the checkpoints of a run that needs them no more, in a bucket.

  Raises:
    ValueError: the bucket cannot be written.
  """
  url = spool.address(directory)
  if store.is_url(url):
    spool.push(directory)
    store.delete(url, store.keys(url))


def _everywhere(fine: bool) -> bool:
  """Whether it is fine on all processes."""
  if jax.process_count() == 1:
    return fine
  return bool(np.all(multihost_utils.process_allgather(np.asarray(fine))))


def _word(step: int, process: int, processes: int) -> str:
  return f"{step}/process-{process:05}-of-{processes:05}.json"


def _notes(url: str, step: int) -> dict[str, Any]:
  """What the first process has said about a step."""
  text = store.read(url, _word(step, 0, _finished(url)[step]))
  return dict(json.loads(text or b""))


def _steps(url: str) -> list[int]:
  """All steps, also those that are not finished."""
  found = map(_STEP.match, store.keys(url))
  return sorted({int(match[1]) for match in found if match})


def _finished(url: str) -> dict[int, int]:
  """{step: processes} of the steps of which each has left its word."""
  found = filter(None, map(_WORD.fullmatch, store.keys(url)))
  words = collections.Counter((int(m[1]), int(m[3])) for m in found)
  return {step: of for (step, of), count in words.items() if count == of}
