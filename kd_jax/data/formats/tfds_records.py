"""Random access to the records of TensorFlow Datasets, without TensorFlow."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from kd_jax.data.formats import array_cache
from kd_jax.data.formats.tfds_prepared import Prepared, Shards

_BATCH = 256  # records read at a time by `columns`: 30 MB of ImageNet
_SPARE = 256  # files that others may open


class Records:
  """The records of some splits, one split after the other.

  Files are opened at the first record that is read from them. Threads may
  share it.

  Args:
    prepared: the data set.
    splits: names of its splits.
  """

  def __init__(self, prepared: Prepared, splits: Sequence[str]) -> None:
    parts = [prepared.splits[split] for split in splits]
    self._shards = shards = Shards(
      sum((part.paths for part in parts), ()),
      sum((part.lengths for part in parts), ()),
    )
    self._ends = np.cumsum(shards.lengths)
    opener = {"array_record": _array_record, "tfrecord": _TFRecords}
    self._data = opener[prepared.file_format](shards)

  def path(self, index: int) -> str:
    """The file of a record."""
    shard = int(np.searchsorted(self._ends, index, side="right"))
    return self._shards.paths[shard]

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    return self.many([index])[0]

  def many(self, indices: Sequence[int]) -> list[Mapping[str, Any]]:
    """Features of some records, {key: tf.train.Feature}.

    Raises:
      ValueError: a file cannot be read or is damaged.
    """
    from google.protobuf.message import DecodeError  # as slow as TFDS

    try:
      if len(indices) == 1:  # spares Grain's thread pool
        return [_parse(self._data[indices[0]])]
      return [_parse(data) for data in self._data.__getitems__(indices)]
    except (RuntimeError, OSError, DecodeError) as error:
      raise ValueError(
        f"{self.path(indices[0])!r} cannot be read: {error}; copy or prepare "
        "the data set again"
      ) from error


def columns(
  prepared: Prepared, split: str, *, label_key: str, name_key: str
) -> np.ndarray:
  """Label and file name of every record of a split, read once and kept.

  Args:
    prepared: the data set.
    split: one of its splits.
    label_key: where the label is; '' stores -1.
    name_key: where the file name is; '' stores nothing.

  Returns:
    (n,) array with the fields 'label' (int64) and 'name' (bytes), mapped into
    memory.
  """
  shards = prepared.splits[split]
  keys = f"{label_key}\0{name_key}"
  files = shards.identity(times=True)
  identity = f"{prepared.name}\0{split}\0{keys}\0{files}"

  def build() -> np.ndarray:
    records = Records(prepared, [split])
    count = len(shards)
    labels, names = np.full(count, -1, np.int64), [b""] * count
    title = f"labels of {prepared.name} {split}"
    for start in _progress(range(0, count, _BATCH), title):
      rows = range(start, min(start + _BATCH, count))
      for row, features in zip(rows, records.many(rows), strict=True):
        if label_key:
          labels[row] = features[label_key].int64_list.value[0]
        if name_key:
          names[row] = features[name_key].bytes_list.value[0]
    return _structured(label=labels, name=np.array(names))

  return array_cache.table("labels", identity, build)


class _TFRecords:
  """Records of TFRecord files, found by their headers once and for all."""

  def __init__(self, shards: Shards) -> None:
    self._paths = shards.paths
    self._ends = np.cumsum(shards.lengths)
    build = functools.partial(_index, shards)
    identity = shards.identity(times=True)
    self._spans = array_cache.table("tfrecord", identity, build)

  def __getitem__(self, index: int) -> bytes:
    shard = int(np.searchsorted(self._ends, index, side="right"))
    offset, size = map(int, self._spans[index])
    # Not kept open: there may be more files than a process may open.
    with open(self._paths[shard], "rb") as file:
      return os.pread(file.fileno(), size, offset)

  def __getitems__(self, indices: Sequence[int]) -> list[bytes]:
    return [self[index] for index in indices]


def _index(shards: Shards) -> Int64[np.ndarray, "n 2"]:
  """Offset and size of every record."""
  files = list(zip(shards.paths, shards.lengths, strict=True))
  progress = _progress(files, "TFRecord headers")
  return np.concatenate([_index_file(*file) for file in progress])


def _index_file(path: str, length: int) -> Int64[np.ndarray, "n 2"]:
  spans, end = np.empty((length, 2), np.int64), 0
  with open(path, "rb") as file:
    actual = os.fstat(file.fileno()).st_size
    for row in range(length):
      size = int.from_bytes(os.pread(file.fileno(), 8, end), "little")
      # Before a record: its size and a checksum; after it: a checksum.
      start, end = end + 12, end + 16 + size
      if end > actual:
        break
      spans[row] = start, size
  if end != actual:
    raise ValueError(
      f"{path!r} is damaged: {length} records do not fill its {actual} bytes; "
      "copy or prepare the data set again"
    )
  return spans


def _array_record(shards: Shards) -> Any:
  from array_record.python import array_record_data_source  # slow to import

  _allow_files(len(shards.paths))
  files = zip(shards.paths, shards.lengths, strict=True)
  return array_record_data_source.ArrayRecordDataSource(
    [f"{path}[0:{length}]" for path, length in files]
  )


def _allow_files(count: int) -> None:
  """Raises the limit of open files: every shard stays open."""
  import resource  # POSIX only, as is array_record

  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  needed = count + _SPARE
  if soft == resource.RLIM_INFINITY or needed <= soft:
    return
  if hard != resource.RLIM_INFINITY and needed > hard:
    raise ValueError(
      f"the data set has {count} files, and this process may open {hard}; "
      f"raise the limit (ulimit -n {needed}) or prepare it with fewer shards"
    )
  resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _parse(data: bytes) -> Mapping[str, Any]:
  features = _example().FromString(data).features.feature
  if not features:  # what a file that is cut short gives
    raise OSError("a record is empty")
  return features


@functools.cache
def _example() -> Any:
  from tensorflow_datasets.proto import tf_example_pb2  # slow to import

  # protobuf makes the class at run time.
  return tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]


def _structured(**fields: np.ndarray) -> np.ndarray:
  kinds = [(name, values.dtype) for name, values in fields.items()]
  table = np.empty(len(next(iter(fields.values()))), kinds)
  for name, values in fields.items():
    table[name] = values
  return table


def _progress(items: Sequence[Any], title: str) -> Iterable[Any]:
  return tqdm(items, title, delay=2, disable=None)
