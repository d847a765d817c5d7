"""Writing a teacher bank, shard by shard."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from kd_jax import disk
from kd_jax.data.bank import storage as files
from kd_jax.data.bank.reader import (
  CONSTANTS,
  HEADER,
  Bank,
  exists,
  read_header,
)
from kd_jax.data.bank.storage import Header


class Writer:
  """Adds shards to a bank; any number of processes may write different ones.

  Attributes:
    constants: what decoding needs.

  Args:
    place: directory or URL; a bank that is there already must be the same.
    header: what the bank is; a digest of the constants is added.
    constants: what decoding needs.

  Raises:
    ValueError: there is another bank.
  """

  def __init__(
    self, place: str, header: Header, constants: Mapping[str, np.ndarray]
  ) -> None:
    about = {**header.about, "constants": files.digest(constants)}
    header = dataclasses.replace(header, about=about)
    self._place, self._header = place, header
    self.constants = dict(constants)
    if exists(place):
      _check_same(place, read_header(place), header)
      return
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **constants)
    with disk.writing(f"the bank's {CONSTANTS}", place, len(file.getbuffer())):
      files.put(place, CONSTANTS, file.getvalue())
      files.put(place, HEADER, header.text().encode())

  def has(self, number: int, shard: int) -> bool:
    """Whether a shard of a pass is complete."""
    return bool(files.get(self._place, files.manifest_key(number, shard)))

  def write(
    self, number: int, shard: int, arrays: Mapping[str, np.ndarray]
  ) -> None:
    """Stores a shard, reads it back and says that it counts.

    Args:
      number: of the pass.
      shard: of the pass.
      arrays: {name: (records of the shard, crops, ...)}.

    Raises:
      ValueError: other arrays or shapes than the header's, or what was
        written cannot be read, or the disk is full.
    """
    rows, header = self._header.rows(shard), self._header
    _check_arrays(arrays, header, len(rows))
    needed = sum(array.nbytes for array in arrays.values())
    with disk.writing(f"shard {shard} of pass {number}", self._place, needed):
      self._store(number, rows, arrays)
    sums = files.checksums(arrays)
    if files.checksums(Bank(self._place).shard(number, shard)) != sums:
      raise ValueError(
        f"{self._place}: shard {shard} of pass {number} reads otherwise than "
        "it was written. Is the disk full or damaged?"
      )
    manifest = {
      "rows": len(rows),
      "checksums": sums,
      "header": files.fingerprint(header),
      "sizes": files.sizes(self._place, number, shard, header),
    }
    key = files.manifest_key(number, shard)
    with disk.writing(key, self._place):
      files.put(self._place, key, json.dumps(manifest).encode())

  def _store(
    self, number: int, rows: range, arrays: Mapping[str, np.ndarray]
  ) -> None:
    jobs = [
      files.open_array(self._place, number, name, self._header, create=True)[
        rows.start : rows.stop
      ].write(arrays[name])
      for name in self._header.arrays
    ]
    for job in jobs:
      files.result(job, self._place)


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
  """Which entries of two mappings differ, and how; '' if none does."""
  names = sorted(set(ours) | set(theirs))
  differ = [n for n in names if ours.get(n) != theirs.get(n)]
  return "; ".join(
    f"{n} is {ours.get(n)!r} here and {theirs.get(n)!r} in the bank"
    for n in differ
  )


def _check_same(place: str, theirs: Header, ours: Header) -> None:
  plain = [json.loads(header.text()) for header in (ours, theirs)]
  about = [fields.pop("about") for fields in plain]
  text = "; ".join(filter(None, (difference(*plain), difference(*about))))
  if text:
    raise ValueError(
      f"there is another bank at {place!r}: {text}. Choose another place, or "
      "delete it."
    )


def _check_arrays(
  arrays: Mapping[str, np.ndarray], header: Header, rows: int
) -> None:
  found = {name: (x.shape, x.dtype.name) for name, x in arrays.items()}
  wanted = {
    name: ((rows, header.crops, *shape), dtype)
    for name, (shape, dtype) in header.arrays.items()
  }
  if found != wanted:
    raise ValueError(f"a shard holds {wanted}; got {found}")
