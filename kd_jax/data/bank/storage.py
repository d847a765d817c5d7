"""The files of a teacher bank: zarr3 arrays and small JSON keys.

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

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from kd_jax import disk
from kd_jax.buckets import store as buckets

_INNER = 16  # records under one checksum, unless the header says otherwise
_MANIFEST = re.compile(r"pass(\d{4,})/shards/(\d{5,})\.json")


@dataclasses.dataclass(frozen=True)
class Header:
  """What a bank is.

  Attributes:
    records: number of records, the ids 0 .. records - 1.
    crops: of every record in a pass.
    shard: records per shard, a multiple of 16.
    arrays: {name: (shape of one crop's entry, dtype)}.
    about: JSON values: everything else that must agree; 'together' is how many
      records are under one checksum, the least that is read, if not 16.
  """

  records: int
  crops: int
  shard: int
  arrays: Mapping[str, tuple[tuple[int, ...], str]]
  about: Mapping[str, Any]

  def __post_init__(self) -> None:
    if min(self.records, self.crops) < 1:
      raise ValueError(
        f"a bank of {self.records} records with {self.crops} crops is empty"
      )
    if self.shard < 1 or self.shard % _INNER:
      raise ValueError(
        f"shard={self.shard} records; it must be a positive multiple of "
        f"{_INNER}"
      )

  @property
  def num_shards(self) -> int:
    """Shards of a pass."""
    return -(-self.records // self.shard)

  @property
  def bytes_per_crop(self) -> int:
    """Of all arrays together, as stored."""
    sizes = (
      int(np.prod(shape)) * np.dtype(dtype).itemsize
      for shape, dtype in self.arrays.values()
    )
    return sum(sizes)

  def rows(self, shard: int) -> range:
    """The records of a shard."""
    start = shard * self.shard
    return range(start, min(start + self.shard, self.records))

  def text(self) -> str:
    """As it is stored."""
    return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)


def fingerprint(header: Header) -> str:
  """16 hex digits of a header."""
  return hashlib.sha256(header.text().encode()).hexdigest()[:16]


def store(place: str) -> Any:
  """Keys and values at `place`.

  Raises:
    ValueError: there is no such bucket, or it cannot be reached.
  """
  if buckets.is_url(place):
    return buckets.folder(place)
  return ts.KvStore.open(_spec(place), context=_context(place)).result()


def get(place: str, key: str) -> bytes:
  """A value; empty where there is none."""
  job = store(place).read(key)
  if buckets.is_url(place):
    return bytes(buckets.result(job, place).value)
  return bytes(job.result().value)


def put(place: str, key: str, value: bytes) -> None:
  """Writes a value, whole or not at all."""
  job = store(place).write(key, value)
  if buckets.is_url(place):
    buckets.result(job, place)
  else:
    job.result()


def keys(place: str) -> set[str]:
  """All keys."""
  if buckets.is_url(place):
    return {*buckets.keys(place)}
  return {key.decode() for key in store(place).list().result()}


def _context(place: str) -> ts.Context:
  scheme = place.partition("://")[0] if buckets.is_url(place) else ""
  return buckets.context(scheme, first_look=False)


def _spec(place: str, *parts: str) -> Any:
  if buckets.is_url(place):
    return buckets.spec(buckets.join(place, *parts))
  place = Path(place).expanduser().resolve().as_uri()
  return "/".join((place.rstrip("/"), *parts, ""))


def open_array(
  place: str, number: int, name: str, header: Header, *, create: bool = False
) -> Any:
  """The zarr array of a pass.

  Raises:
    ValueError: it is not there and shall not be created, or is another one.
  """
  shape, dtype = header.arrays[name]
  full = [header.records, header.crops, *shape]
  order = {"endian": "little"} if np.dtype(dtype).itemsize > 1 else {}
  plain: dict[str, Any] = {"name": "bytes"}
  if order:
    plain["configuration"] = order
  index = {"name": "bytes", "configuration": {"endian": "little"}}
  sharding = {
    "chunk_shape": [header.about.get("together", _INNER), *full[1:]],
    "codecs": [plain, {"name": "crc32c"}],
    "index_codecs": [index, {"name": "crc32c"}],
  }
  grid = {"chunk_shape": [header.shard, *full[1:]]}
  spec = {
    "driver": "zarr3",
    "kvstore": _spec(place, f"pass{number:04}", name),
    # A chunk of zeros would have no file, as if it had been lost.
    "store_data_equal_to_fill_value": True,
    "fill_missing_data_reads": False,
    "metadata": {
      "shape": full,
      "data_type": dtype,
      "chunk_grid": {"name": "regular", "configuration": grid},
      "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    },
  }
  job = ts.open(spec, create=create, open=True, context=_context(place))
  return result(job, place)


def manifest_key(number: int, shard: int) -> str:
  """Where the manifest of a shard is."""
  return f"pass{number:04}/shards/{shard:05}.json"


def manifests(place: str, keys: set[str]) -> dict[tuple[int, int], bytes]:
  """{(pass, shard): its manifest}, of all that have one."""
  found = (_MANIFEST.fullmatch(key) for key in sorted(keys))
  where = store(place)
  jobs = {
    (int(match[1]), int(match[2])): where.read(match[0])
    for match in found
    if match
  }
  return {spot: bytes(job.result().value) for spot, job in jobs.items()}


def _files(number: int, shard: int, header: Header) -> dict[str, str]:
  """{array: key of the file} of a shard."""
  return {
    name: f"pass{number:04}/{name}/c/{shard}" + "/0" * (1 + len(shape))
    for name, (shape, _) in header.arrays.items()
  }


def sizes(
  place: str, number: int, shard: int, header: Header
) -> dict[str, int]:
  """Bytes of the files of a shard; buckets keep theirs to themselves."""
  if "://" in place:
    return {}
  root = Path(place).expanduser()
  files = _files(number, shard, header)
  return {name: os.path.getsize(root / key) for name, key in files.items()}


def read_manifest(
  text: bytes,
  spot: tuple[int, int],
  *,
  place: str,
  header: Header,
  keys: set[str],
) -> dict[str, Any]:
  """A manifest, after a look at the files that it speaks of.

  Args:
    text: of the manifest.
    spot: its pass and shard.
    place: of the bank.
    header: of the bank.
    keys: all that are there.

  Raises:
    ValueError: it is damaged or of another bank, or a file is missing or of
      another size.
  """
  key, files = manifest_key(*spot), _files(*spot, header)
  repair = (
    f"Delete {key} and write the bank again: only this shard is made anew."
  )
  try:
    manifest = json.loads(text)
    theirs, wanted = manifest["header"], manifest["sizes"]
    _ = manifest["checksums"].items()
  except (ValueError, LookupError, TypeError, AttributeError) as error:
    raise ValueError(f"{place}: {key} is damaged. {repair}") from error
  if theirs != fingerprint(header):
    raise ValueError(
      f"{place}: {key} belongs to the bank {theirs}, and this is "
      f"{fingerprint(header)}: bank.json or the shard was replaced. Put back "
      "what belongs together, or write another bank."
    )
  lost = [name for name in files.values() if name not in keys]
  if lost:
    raise ValueError(f"{place}: {lost[0]} is missing. {repair}")
  for name, size in sizes(place, *spot, header).items():
    if wanted.get(name) != size:
      raise ValueError(
        f"{place}: {files[name]} has {size} bytes, not {wanted.get(name)}. "
        f"{repair}"
      )
  return manifest


def checksums(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
  """16 hex digits of every array."""
  return {
    name: hashlib.blake2b(_bytes(x), digest_size=8).hexdigest()
    for name, x in arrays.items()
  }


def _bytes(array: np.ndarray) -> memoryview:
  """Those of an array, without a copy where they lie in order."""
  return np.ascontiguousarray(array).view(np.uint8).data


def digest(constants: Mapping[str, np.ndarray]) -> str:
  """16 hex digits of all arrays together."""
  sums = checksums(dict(sorted(constants.items())))
  return hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:16]


def result(job: Any, place: str) -> Any:
  """What a TensorStore job yields.

  Raises:
    ValueError: stored bytes are damaged or out of reach, the disk is full, or
      the bucket refuses.
  """
  try:
    return job.result()
  except ValueError as error:
    if disk.code(error) in disk.FULL:
      raise
    refusal = buckets.is_url(place) and buckets.refusal(error, place)
    if refusal:
      raise ValueError(refusal) from error
    raise ValueError(
      f"the bank {place} is damaged: {error}. --config.bank.verify=True of "
      "the config that wrote it lists all that is."
    ) from error
