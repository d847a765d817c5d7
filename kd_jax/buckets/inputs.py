"""Files of a bucket that a run starts from: weights, bases, finished runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from kd_jax import disk
from kd_jax.buckets import store


def fetched(url: str, names: Sequence[str]) -> Path:
  """A folder of this machine with files of a folder of a bucket.

  They are kept, and asked for again only if the bucket has other ones.

  Args:
    url: of the folder.
    names: of files in it; those that are not there are left out.

  Returns:
    A folder below KD_JAX_CACHE (~/.cache/kd_jax).

  Raises:
    ValueError: the bucket cannot be read, or the disk is full.
  """
  where = store.folder(url, first_look=True)
  cache = Path(os.environ.get("KD_JAX_CACHE") or "~/.cache/kd_jax")
  key = hashlib.sha256(url.encode()).hexdigest()[:16]
  kept = cache.expanduser() / "buckets" / key
  for name in names:
    path, version = kept / name, kept / f"{name}.version"
    known = version.exists() and path.exists()
    found = store.result(
      where.read(name, if_not_equal=version.read_bytes() if known else None),
      url,
    )
    if found.state == "missing":
      path.unlink(missing_ok=True)
    elif found.state == "value":
      path.parent.mkdir(parents=True, exist_ok=True)
      version.unlink(missing_ok=True)
      disk.write(path, bytes(found.value))
      disk.write(version, bytes(found.stamp.generation))
  return kept


def fetched_file(url: str) -> Path:
  """One file of a bucket, see `fetched`.

  Raises:
    ValueError: it is not there, or see `fetched`.
  """
  folder, _, name = url.rpartition("/")
  path = fetched(folder, [name]) / name
  if not path.exists():
    raise ValueError(f"there is no {url}")
  return path
