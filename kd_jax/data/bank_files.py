"""The files of a teacher bank: zarr3 arrays and small JSON keys.

See `bank` for the layout.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

_INNER = 16  # records under one checksum, and the least that is read


@dataclasses.dataclass(frozen=True)
class Header:
  """What a bank is.

  Attributes:
    records: number of records, the ids 0 .. records - 1.
    crops: of every record in a pass.
    shard: records per shard, a multiple of 16.
    arrays: {name: (shape of one crop's entry, dtype)}.
    about: JSON values: everything else that must agree.
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
  """Keys and values at `place`."""
  return ts.KvStore.open(_url(place)).result()


def get(place: str, key: str) -> bytes:
  """A value; empty where there is none."""
  return bytes(store(place).read(key).result().value)


def keys(place: str) -> set[str]:
  """All keys."""
  return {key.decode() for key in store(place).list().result()}


def _url(place: str, *parts: str) -> str:
  if "://" not in place:
    place = Path(place).expanduser().resolve().as_uri()
  return "/".join((place.rstrip("/"), *parts, ""))


def open_array(place: str, number: int, name: str, header: Header) -> Any:
  """The zarr array of a pass, created where it is not there."""
  shape, dtype = header.arrays[name]
  full = [header.records, header.crops, *shape]
  order = {"endian": "little"} if np.dtype(dtype).itemsize > 1 else {}
  plain: dict[str, Any] = {"name": "bytes"}
  if order:
    plain["configuration"] = order
  index = {"name": "bytes", "configuration": {"endian": "little"}}
  sharding = {
    "chunk_shape": [_INNER, *full[1:]],
    "codecs": [plain, {"name": "crc32c"}],
    "index_codecs": [index, {"name": "crc32c"}],
  }
  grid = {"chunk_shape": [header.shard, *full[1:]]}
  spec = {
    "driver": "zarr3",
    "kvstore": _url(place, f"pass{number:04}", name),
    # A chunk of zeros would have no file, as if it had been lost.
    "store_data_equal_to_fill_value": True,
    "metadata": {
      "shape": full,
      "data_type": dtype,
      "chunk_grid": {"name": "regular", "configuration": grid},
      "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    },
  }
  return ts.open(spec, create=True, open=True).result()


def manifest_key(number: int, shard: int) -> str:
  """Where the manifest of a shard is."""
  return f"pass{number:04}/shards/{shard:05}.json"


def parse_manifest_key(key: str) -> tuple[int, int]:
  """(pass, shard), or (-1, -1) for another file."""
  parts = key.split("/")
  if len(parts) != 3 or parts[1] != "shards":
    return -1, -1
  return int(parts[0].removeprefix("pass")), int(parts[2].split(".")[0])


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


def check_files(
  place: str, number: int, shard: int, header: Header, keys: set[str]
) -> None:
  """Whether the files of a shard are there, and whole as far as sizes tell.

  Raises:
    ValueError: one is missing or of another size.
  """
  files = _files(number, shard, header)
  lost = [key for key in files.values() if key not in keys]
  if lost:
    raise ValueError(f"{place}: {lost[0]} is missing. {_repair(number, shard)}")
  manifest = json.loads(get(place, manifest_key(number, shard)))
  for name, size in sizes(place, number, shard, header).items():
    if manifest["sizes"].get(name, size) != size:
      raise ValueError(
        f"{place}: {files[name]} has {size} bytes, not "
        f"{manifest['sizes'][name]}. {_repair(number, shard)}"
      )


def _repair(number: int, shard: int) -> str:
  return (
    f"Delete {manifest_key(number, shard)} and write the bank again: only "
    "this shard is made anew."
  )


def checksums(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
  """16 hex digits of every array."""
  return {
    name: hashlib.blake2b(np.ascontiguousarray(x), digest_size=8).hexdigest()
    for name, x in arrays.items()
  }


def result(job: Any, place: str) -> Any:
  """What a TensorStore job yields.

  Raises:
    ValueError: stored bytes are damaged or out of reach.
  """
  try:
    return job.result()
  except ValueError as error:
    raise ValueError(
      f"the bank {place} is damaged: {error}. --config.bank.verify=True of "
      "the config that wrote it lists all that is."
    ) from error
