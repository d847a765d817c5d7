"""Blocks of records in parquet and Arrow files, through pyarrow.

A block is a row group of a parquet file, or a record batch of an Arrow file,
which on a disk is mapped into memory and not copied. Arrow's own format:
arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import mmap
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from flatbuffers import number_types, table
from jaxtyping import Int64

from kd_jax.data.formats import array_cache
from kd_jax.data.shards import files, layout, work
from kd_jax.data.shards.files import File

_VERSION = 1
_AHEAD = 65536  # of an Arrow file in a bucket: enough for most headers
_MAGIC = b"ARROW1\0\0"
_CONTINUES = b"\xff\xff\xff\xff"
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_FIELDS = ("shard", "start", "size", "rows")


@dataclasses.dataclass(frozen=True)
class Columns:
  """What is taken of a block.

  Attributes:
    images: encoded; null where there is only a path.
    paths: of image files; None if there are none.
    labels: (rows,), -1 for null; None if none are wanted.
  """

  images: pa.ChunkedArray
  paths: pa.ChunkedArray | None
  labels: Int64[np.ndarray, " rows"] | None


def schema(file: File) -> pa.Schema:
  """The columns of a file, and what is stored about them.

  Raises:
    ValueError: it is damaged, or no such file.
  """
  with _readable(file):
    return _schema(file)


def blocks(shards: Sequence[File], image: str, label: str) -> np.ndarray:
  """All blocks of some files, in order; found once, kept on disk.

  Args:
    shards: the files.
    image: see `layout.of`.
    label: see `layout.of`.

  Returns:
    (n,) array with the fields 'shard', 'start' (the first byte, or the number
    of the row group), 'size' (bytes; 0 in parquet) and 'rows'.

  Raises:
    ValueError: a file is damaged, or has other columns or classes than the
      first.
  """
  identity = f"{_VERSION}\0{image}\0{label}\0{tuple(shards)}"
  first = layout.of(schema(shards[0]), image, label, shards[0].path)

  def read(number: int) -> list[tuple[int, ...]]:
    file = shards[number]
    found = layout.of(schema(file), image, label, file.path)
    if found != first:
      raise ValueError(
        f"{file.path} has other columns or classes than {shards[0].path}: "
        f"{found.columns} and {len(found.classes)} classes, there "
        f"{first.columns} and {len(first.classes)}; name files of one data set"
      )
    with _readable(file):
      return [(number, *block) for block in _blocks(file)]

  def build() -> np.ndarray:
    title = f"blocks of {len(shards)} files"
    found = sum(work.each(read, range(len(shards)), title), [])
    return np.array(found, [(name, np.int64) for name in _FIELDS])

  return array_cache.table("arrow", identity, build)


def load(file: File, start: int, size: int, wanted: layout.Layout) -> Columns:
  """A block.

  Args:
    file: where it is.
    start: its first byte, or the number of the row group.
    size: its bytes.
    wanted: columns.

  Raises:
    ValueError: it is damaged.
  """
  with _readable(file):
    found = _table(file, start, size, wanted.columns)
    images = found.column(wanted.image)
    paths = None
    if pa.types.is_struct(images.type):
      # pyarrow makes its functions at run time.
      part = pc.struct_field  # pyright: ignore[reportAttributeAccessIssue]
      if images.type.get_field_index("path") >= 0:
        paths = part(images, "path")
      images = part(images, "bytes")
    labels = _numbers(found.column(wanted.label)) if wanted.label else None
    return Columns(images, paths, labels)


def labels(
  shards: Sequence[File], found: np.ndarray, wanted: layout.Layout
) -> Int64[np.ndarray, " n"]:
  """The label of every record, read once and kept on disk.

  Args:
    shards: the files.
    found: their `blocks`.
    wanted: columns.
  """

  def read(block: int) -> np.ndarray:
    shard, start, size, _ = found[block].tolist()
    with _readable(shards[shard]):
      column = _table(shards[shard], start, size, [wanted.label])
      return _numbers(column.column(wanted.label))

  def build() -> np.ndarray:
    title = f"labels of {len(found)} blocks"
    return np.concatenate(work.each(read, range(len(found)), title))

  identity = f"{_VERSION}\0{wanted.label}\0{tuple(shards)}"
  return array_cache.table("labels", identity, build)


@contextlib.contextmanager
def _readable(file: File) -> Iterator[None]:
  try:
    yield
  except (pa.ArrowException, OSError) as error:
    raise ValueError(
      f"{file.path}: damaged, cut short or of another kind "
      f"({str(error).splitlines()[0]}); copy or write it again"
    ) from error


def _is_parquet(file: File) -> bool:
  return file.path.endswith(".parquet")


def _schema(file: File) -> pa.Schema:
  if _is_parquet(file):
    return _footer(file).schema.to_arrow_schema()
  if not file.size:
    raise OSError("0 bytes")
  start, size, _, _ = next(_messages(file))
  return pa.ipc.read_schema(pa.py_buffer(files.read(file, start, start + size)))


def _blocks(file: File) -> list[tuple[int, int, int]]:
  """(start, size, rows) of every block."""
  if _is_parquet(file):
    footer = _footer(file)
    groups = range(footer.num_row_groups)
    return [(group, 0, footer.row_group(group).num_rows) for group in groups]
  found = []
  for start, size, kind, rows in _messages(file):
    if kind == _DICTIONARY:
      raise ValueError(
        f"{file.path}: has a column of the type dictionary; cast it to another "
        "and save it again"
      )
    if kind == _BATCH:
      found.append((start, size, rows))
  return found


@functools.lru_cache(maxsize=1024)
def _footer(file: File) -> pq.FileMetaData:
  with files.Reader(file) as reader:
    return pq.read_metadata(reader)


def _table(
  file: File, start: int, size: int, columns: Sequence[str]
) -> pa.Table:
  if _is_parquet(file):
    with pq.ParquetFile(_opened(file), metadata=_footer(file)) as opened:
      return opened.read_row_group(start, list(columns), use_threads=False)
  if files.is_remote(file.path):
    data = pa.py_buffer(files.read(file, start, start + size))
  else:
    data = _mapped(file).slice(start, size)
  batch = pa.ipc.read_record_batch(pa.ipc.read_message(data), _known(file))
  return pa.Table.from_batches([batch.select(list(columns))])


def _opened(file: File) -> files.Reader | pa.MemoryMappedFile:
  if files.is_remote(file.path):
    return files.Reader(file)
  files.read(file, 0, 1)  # has it changed?
  return pa.memory_map(file.path)


@functools.lru_cache(maxsize=1024)
def _known(file: File) -> pa.Schema:
  return _schema(file)


@functools.lru_cache(maxsize=1024)
def _mapped(file: File) -> pa.Buffer:
  files.read(file, 0, 1)  # has it changed?
  with open(file.path, "rb") as opened:
    return pa.py_buffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))


def _messages(file: File) -> Iterator[tuple[int, int, int, int]]:
  """(start, size, kind, rows) of every message of an Arrow file."""
  reader = files.Reader(file, _AHEAD if files.is_remote(file.path) else 0)
  at = len(_MAGIC) if reader.read(len(_MAGIC)) == _MAGIC else 0
  while at < file.size:
    reader.seek(at)
    head = reader.read(8)
    if head[:4] != _CONTINUES:
      raise OSError(f"no message at byte {at}")
    length = int.from_bytes(head[4:], "little")
    if not length:  # the end; a footer may follow
      return
    about = reader.read(length)
    kind, body, rows = _about(about) if len(about) == length else (0, 0, 0)
    size = 8 + length + body
    if at + size > file.size:
      raise OSError(f"the message at byte {at} goes on after the end")
    yield at, size, kind, rows
    at += size


def _about(metadata: bytes) -> tuple[int, int, int]:
  """(kind, bytes of the body, rows) of a message, see Message.fbs."""
  root = int.from_bytes(metadata[:4], "little")
  message = table.Table(bytearray(metadata), root)

  def field(of: table.Table, number: int, flags: type) -> int:
    offset = of.Offset(4 + 2 * number)
    return int(of.Get(flags, of.Pos + offset)) if offset else 0

  kind = field(message, 1, number_types.Uint8Flags)
  body = field(message, 3, number_types.Int64Flags)
  if kind != _BATCH:
    return kind, body, 0
  place = message.Indirect(message.Pos + message.Offset(4 + 2 * 2))
  batch = table.Table(message.Bytes, place)
  return kind, body, field(batch, 0, number_types.Int64Flags)


def _numbers(column: pa.ChunkedArray) -> Int64[np.ndarray, " rows"]:
  return pc.fill_null(column.cast(pa.int64()), -1).to_numpy()
