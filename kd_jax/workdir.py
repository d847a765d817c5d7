"""The folder of a run: what was run, by which code, and nobody else's.

It may be the spool of a bucket, which is then kept in step with it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fnmatch
import importlib.metadata
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kd_jax import disk, lock, trees
from kd_jax.buckets import spool

# Fields that may change between two starts of the same experiment.
FREE = (
  "dry_run",
  "log_every",
  "trackers",
  "checkpoint",
  "eval",
  "mesh",
  "fsdp",
  "teacher/fsdp",
  "topology",
  "price_per_chip_hour",
  "transfer/at_once",
)
# Of those, what the figures of a transfer depend on.
JUDGES = ("eval/every", "eval/limit", "eval/mirror")
# What a folder must hold to be worth protecting from another experiment.
RESULTS = (
  "checkpoints/[0-9]*",
  "student/*",
  "trials/*/result.json",
  "trials/*/checkpoints/[0-9]*",
)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")
_PATIENCE = 5  # seconds between two words of the first process
_WAITING = "waiting"
_Owned = contextlib.AbstractContextManager[None]
_URLS = ("gs:/", "s3:/", "memory:/")  # as paths spell them
_LONGEST = 4096  # bytes of a message between processes


@contextlib.contextmanager
def claimed(workdir: Path, config: Mapping[str, Any]) -> Iterator[None]:
  """Owns the folder, and keeps config.json and versions.json in it.

  Of several processes the first one owns it, for all. A folder without
  results, left by a run that failed early, is taken over.

  Args:
    workdir: is made when missing.
    config: what the experiment is.

  Raises:
    ValueError: another command is writing to it, it cannot be written, or it
      holds results of a different experiment; at the end: a bucket could not
      be brought up to date.
  """
  if str(workdir).startswith(_URLS):
    raise ValueError(
      f"{workdir} was a URL; in Python, give the task the folder of "
      "'with kd_jax.buckets.spool.mounted(URL) as folder'"
    )
  with contextlib.ExitStack() as stack:
    mine = _opened(workdir, config)
    if jax.process_count() == 1:
      refusal = _entered(stack, mine)
    else:
      refusal = _entered_by_the_first(stack, mine)
    if refusal:
      raise ValueError(refusal)
    workdir.mkdir(parents=True, exist_ok=True)  # on other machines
    if jax.process_index():
      spool.pull(workdir)
    try:
      yield
    except BaseException:
      with contextlib.suppress(ValueError):  # what ended it says more
        spool.push(workdir, first_look=True)
      raise
    spool.push(workdir)


def _entered(stack: contextlib.ExitStack, mine: _Owned) -> str:
  """Why the folder cannot be owned; '' if it is."""
  try:
    stack.enter_context(mine)
  except ValueError as error:
    return str(error)
  return ""


def _entered_by_the_first(stack: contextlib.ExitStack, mine: _Owned) -> str:
  """As `_entered`, for all; the first may have to wait for a bucket's owner.

  It says so now and then: nobody waits for long in silence, see `buckets.lease`
  and the time that collectives give each other.
  """
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    first = jax.process_index() == 0
    job = pool.submit(_entered, stack, mine) if first else None
    while True:
      done = job is None or concurrent.futures.wait([job], _PATIENCE).done
      said = job.result() if job and done else "" if done else _WAITING
      said = _of_the_first(said)
      if said != _WAITING:
        return said


@contextlib.contextmanager
def _opened(workdir: Path, config: Mapping[str, Any]) -> Iterator[None]:
  text = json.dumps(dict(config), indent=2, sort_keys=True, default=list)
  known = workdir / "config.json"
  with contextlib.ExitStack() as stack:
    try:
      workdir.mkdir(parents=True, exist_ok=True)
      stack.enter_context(lock.held(workdir))
      spool.pull(workdir)
      if known.exists() and _has_results(workdir):
        _check_same(_read(known), json.loads(text), workdir)
      write(known, text)
      write(workdir / "versions.json", json.dumps(versions(), indent=2))
      spool.push(workdir)
    except OSError as error:
      raise ValueError(_unwritable(workdir, error)) from error
    yield


def _has_results(workdir: Path) -> bool:
  found = spool.keys(workdir)
  return any(
    any(workdir.glob(each)) or fnmatch.filter(found, each) for each in RESULTS
  )


def _unwritable(workdir: Path, error: OSError) -> str:
  head = f"the workdir {spool.address(workdir)} cannot be written"
  if error.errno in disk.FULL:
    return f"{head} ({disk.reason(error, workdir)}). {disk.fix(error)}"
  return f"{head} ({error.strerror}); give another one with --workdir"


def _of_the_first(text: str) -> str:
  """What the first process says; all must go on, or none."""
  if jax.process_count() == 1:
    return text
  sent = text.encode()[:_LONGEST].ljust(_LONGEST, b"\0")
  found = multihost_utils.broadcast_one_to_all(np.frombuffer(sent, np.uint8))
  return bytes(np.asarray(found)).rstrip(b"\0").decode(errors="ignore")


def together(what: str, workdir: Path) -> None:
  """Waits until all processes are here: what the first one wrote is there.

  Raises:
    ValueError: a bucket cannot be read or written.
  """
  if jax.process_index() == 0:
    spool.push(workdir)
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)
  if jax.process_index():
    spool.pull(workdir)


def _read(path: Path) -> Any:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(
      f"{spool.address(path)} is damaged ({error}), so it cannot be told which "
      "experiment the results beside it belong to; use another --workdir"
    ) from error


def write(path: Path, text: str) -> None:
  """Writes a file that is either whole or not there.

  Raises:
    ValueError: the disk is full.
    OSError: it cannot be written for another reason.
  """
  disk.write(path, text.encode())


def versions() -> dict[str, str]:
  """Package versions, git commit and uncommitted changes of the code."""
  found = {name: importlib.metadata.version(name) for name in PACKAGES}
  here = Path(__file__).parent
  # An installed package may lie in a repository that is about something else.
  own = _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
  found["commit"] = _git(here, "rev-parse", "HEAD") if own else ""
  found["diff"] = _git(here, "diff", "HEAD") if own else ""
  return found


def _git(where: Path, *args: str) -> str:
  command = ["git", "-C", str(where), *args]
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
  except (OSError, subprocess.TimeoutExpired):
    return ""
  return done.stdout.strip() if done.returncode == 0 else ""


def _stated(value: Any) -> Any:
  """None for a field left open, as for one that configs did not have yet."""
  return None if value in ("", []) else value


def _check_same(old: Any, new: Any, workdir: Path) -> None:
  kept = JUDGES if "transfer" in new else ()
  old, new = (
    {
      path: value
      for path, value in trees.flatten(tree).items()
      if not trees.is_under(path, FREE) or path in kept
    }
    for tree in (old, new)
  )
  changed = sorted(
    path.replace("/", ".")
    for path in set(old) | set(new)
    if _stated(old.get(path)) != _stated(new.get(path))
  )
  if changed:
    first = changed[0].replace(".", "/")
    where = spool.address(workdir)
    raise ValueError(
      f"{where} holds another experiment: {changed} differ (config."
      f"{changed[0]} was {old.get(first)!r}, is {new.get(first)!r}). Use "
      "another --workdir; its weights can be reused with --config.init_from."
    )
