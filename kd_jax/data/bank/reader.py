"""Reading a teacher bank; `storage` has its layout."""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from kd_jax.data.bank import storage as files
from kd_jax.data.bank.storage import Header
from kd_jax.interfaces import computed_once

HEADER, CONSTANTS = "bank.json", "constants.npz"
_FIX = "put it back from a copy, or write another bank"


def exists(place: str) -> bool:
  """Whether there is a bank."""
  return bool(files.get(place, HEADER))


def read_header(place: str) -> Header:
  """The header of the bank at `place`.

  Raises:
    ValueError: there is no bank, or its header is damaged.
  """
  text = files.get(place, HEADER)
  if not text:
    raise ValueError(
      f"there is no bank at {place!r}. Write one with a config of the task "
      "'write_bank', for instance configs/bank_kdep.py."
    )
  try:
    fields = json.loads(text)
    fields["arrays"] = {
      name: (tuple(shape), dtype)
      for name, (shape, dtype) in fields["arrays"].items()
    }
    return Header(**fields)
  except (ValueError, LookupError, TypeError, AttributeError) as error:
    raise ValueError(
      f"{place}: {HEADER} is damaged ({error}); {_FIX}"
    ) from error


@dataclasses.dataclass(frozen=True)
class Bank:
  """An open bank; what is pickled goes on seeing as many passes.

  Attributes:
    place: directory or URL.
    passes: how many of its passes are in use; 0 is all that are complete.
  """

  place: str
  passes: int = 0

  @computed_once
  def header(self) -> Header:
    """See `read_header`."""
    return read_header(self.place)

  @property
  def per_image(self) -> bool:
    """Whether entries belong to images, whatever their crops."""
    return bool(self.header.about.get("per_image"))

  @property
  def fingerprint(self) -> str:
    """16 hex digits: of teacher, images, views, codec and constants."""
    return files.fingerprint(self.header)

  @functools.cached_property
  def constants(self) -> dict[str, np.ndarray]:
    """The arrays that decoding needs.

    Raises:
      ValueError: they are damaged, or those of another bank.
    """
    data = files.get(self.place, CONSTANTS)
    try:
      found = dict(np.load(io.BytesIO(data), allow_pickle=False))
    except Exception as error:  # numpy and zipfile raise nine kinds
      raise ValueError(
        f"{self.place}: {CONSTANTS} is damaged ({error}); {_FIX}"
      ) from error
    if files.digest(found) != self.header.about["constants"]:
      raise ValueError(
        f"{self.place}: {CONSTANTS} is not the one that belongs to {HEADER}; "
        f"{_FIX}"
      )
    return found

  @functools.cached_property
  def num_passes(self) -> int:
    """Complete passes, counted from the first one on, at most `passes`.

    Raises:
      ValueError: a shard that counts belongs to another bank, or a file of it
        is missing or cut short.
    """
    keys = files.keys(self.place)
    found = files.manifests(self.place, keys)
    every = range(self.header.num_shards)
    number = 0
    while number != (self.passes or -1) and all(
      (number, shard) in found for shard in every
    ):
      for spot in ((number, shard) for shard in every):
        files.read_manifest(
          found[spot], spot, place=self.place, header=self.header, keys=keys
        )
      number += 1
    return number

  def read(self, passes: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    """What is stored of some records.

    Args:
      passes: (n,) number of the pass to read for each.
      ids: (n,) records.

    Returns:
      {array: (n, crops, ...)}.

    Raises:
      ValueError: stored bytes are damaged.
    """
    found: dict[str, np.ndarray] = {}
    for name, (shape, dtype) in self.header.arrays.items():
      shape = (len(ids), self.header.crops, *shape)
      found[name] = np.empty(shape, dtype)
    jobs = []
    for number in np.unique(passes):
      where = np.flatnonzero(passes == number)
      for name in found:
        job = self._array(int(number), name)[ids[where]].read()
        jobs.append((name, where, job))
    for name, where, job in jobs:
      found[name][where] = files.result(job, self.place)
    return found

  def counts(self) -> dict[int, int]:
    """{pass: shards that are complete}, of all passes that were begun."""
    found = files.manifests(self.place, files.keys(self.place))
    return dict(sorted(collections.Counter(p for p, _ in found).items()))

  def damaged(self) -> Iterator[str]:
    """Reads everything; yields what is wrong, one line each.

    Raises:
      ValueError: there is no bank.
    """
    try:
      _ = self.constants
    except ValueError as error:
      yield str(error)
    keys = files.keys(self.place)
    for spot, text in files.manifests(self.place, keys).items():
      where = "pass {}, shard {}".format(*spot)
      try:
        manifest = files.read_manifest(
          text, spot, place=self.place, header=self.header, keys=keys
        )
        found = files.checksums(self.shard(*spot))
      except ValueError as error:
        yield f"{where}: {error}"
        continue
      if found != manifest["checksums"]:
        yield f"{where}: its arrays are not those that were written"

  def shard(self, number: int, shard: int) -> dict[str, np.ndarray]:
    """All arrays of one shard of a pass.

    Raises:
      ValueError: stored bytes are damaged.
    """
    rows = self.header.rows(shard)
    jobs = {
      name: self._array(number, name)[rows.start : rows.stop].read()
      for name in self.header.arrays
    }
    return {name: files.result(job, self.place) for name, job in jobs.items()}

  def _array(self, number: int, name: str) -> Any:
    key = (number, name)
    if key not in self._arrays:
      self._arrays[key] = files.open_array(
        self.place, number, name, self.header
      )
    return self._arrays[key]

  @functools.cached_property
  def _arrays(self) -> dict[tuple[int, str], Any]:
    return {}

  def __getstate__(self) -> dict[str, Any]:
    # Passes that are added meanwhile must not part worker processes.
    kept = ("place", "passes", "num_passes")
    return {k: v for k, v in vars(self).items() if k in kept}
