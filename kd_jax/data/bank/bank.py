"""What a teacher said about every crop of every image, on disk or in a bucket.

  bank.json                  the header: what is stored, and what it comes from
  constants.npz              what decoding needs beside the stored arrays
  pass0000/<array>/          zarr3 (records, crops, ...), one file per shard,
                             a CRC-32C for every few records
  pass0000/shards/00003.json manifest of a shard; written last, so a shard
                             without one does not count

A pass holds the same number of crops of every record; passes can be added at
any time. Any TensorStore location will do: a directory, gs://, s3://.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kd_jax import disk
from kd_jax.data.bank import storage as files
from kd_jax.data.bank.storage import Header

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
  """

  place: str

  @functools.cached_property
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
    if _digest(found) != self.header.about["constants"]:
      raise ValueError(
        f"{self.place}: {CONSTANTS} is not the one that belongs to {HEADER}; "
        f"{_FIX}"
      )
    return found

  @functools.cached_property
  def num_passes(self) -> int:
    """Complete passes, counted from the first one on.

    Raises:
      ValueError: a shard that counts belongs to another bank, or a file of it
        is missing or cut short.
    """
    keys = files.keys(self.place)
    found = files.manifests(self.place, keys)
    every = range(self.header.num_shards)
    number = 0
    while all((number, shard) in found for shard in every):
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
    kept = ("place", "num_passes")
    return {k: v for k, v in vars(self).items() if k in kept}


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
    about = {**header.about, "constants": _digest(constants)}
    header = dataclasses.replace(header, about=about)
    self._place, self._header = place, header
    self.constants = dict(constants)
    if exists(place):
      _check_same(place, read_header(place), header)
      return
    store = files.store(place)
    file = io.BytesIO()
    np.savez(file, **constants)
    with disk.writing(f"the bank's {CONSTANTS}", place, len(file.getbuffer())):
      store[CONSTANTS] = file.getvalue()
      store[HEADER] = header.text().encode()

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
      files.store(self._place)[key] = json.dumps(manifest).encode()

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


def _digest(constants: Mapping[str, np.ndarray]) -> str:
  sums = files.checksums(dict(sorted(constants.items())))
  return hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:16]
