"""Records per second of tars, parquet and Arrow files, next to a folder's.

  python -m benchmarks.shards [--count 2000] [--seconds 3] [--delay 0]

The photographs of benchmarks/input.py: as single files; as tars of 500, written
by the standard library; as one parquet file in row groups of 100, as the hub
has them, and as one Arrow file in batches of 100, written by pyarrow as
`datasets` does it. 'read' is `source[i]` alone, in one thread, without
decoding; 'views' is `pipeline.train_batches` with crops to 224 pixels in 8
threads. 'random' mixes all records, 'blocks' is shuffle_blocks=16. 'MB' is the
memory that reading took, at most, beside mapped files. All files lie in the
page cache. --delay 0.03 reads them as from a bucket, through fsspec, where
every request waits for 0.03 seconds (but no bytes travel), with 32 threads.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.input import machine, photographs
from kd_jax.data import pipeline
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.reading import Reading
from kd_jax.data.shards import files as files_lib
from kd_jax.data.sources import folder, huggingface, webdataset
from kd_jax.interfaces import DataSource

PER_TAR, PER_GROUP, MIXED = 500, 100, 16
DIRS = ("files", "tars", "tables")


class Memory:
  """The most memory of this process, beyond what it had, while it lasts."""

  def __enter__(self) -> Memory:
    self._before = self._most = _resident()
    self._end = threading.Event()
    self._thread = threading.Thread(target=self._watch)
    self._thread.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._end.set()
    self._thread.join()

  def _watch(self) -> None:
    while not self._end.wait(0.01):
      self._most = max(self._most, _resident())

  @property
  def megabytes(self) -> float:
    """What was added."""
    return (self._most - self._before) / 1000


def _resident() -> int:
  """KiB that are not of mapped files."""
  lines = Path("/proc/self/status").read_text().splitlines()
  return next(int(x.split()[1]) for x in lines if x.startswith("RssAnon"))


def write_tars(files: Sequence[Path], place: Path) -> None:
  """The files in tars of `PER_TAR` samples, with labels."""
  for number, first in enumerate(range(0, len(files), PER_TAR)):
    with tarfile.open(place / f"a-{number:06d}.tar", "w") as archive:
      for file in files[first : first + PER_TAR]:
        archive.add(file, f"{file.stem}.jpg")
        label = tarfile.TarInfo(f"{file.stem}.cls")
        label.size = 1
        archive.addfile(label, io.BytesIO(b"0"))


def write_tables(files: Sequence[Path], place: Path) -> None:
  """The files as columns 'image' and 'label', in groups of `PER_GROUP`."""
  kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
  schema = pa.schema({"image": kind, "label": pa.int64()})
  with (
    pq.ParquetWriter(place / "a.parquet", schema) as groups,
    pa.ipc.new_stream(place / "a.arrow", schema) as batches,
  ):
    for first in range(0, len(files), PER_GROUP):
      some = files[first : first + PER_GROUP]
      images = [{"bytes": x.read_bytes(), "path": x.name} for x in some]
      columns = {"image": pa.array(images, kind), "label": [0] * len(some)}
      table = pa.table(columns, schema)
      groups.write_table(table)
      batches.write_table(table)


def sources(place: Path, remote: bool) -> Mapping[str, DataSource]:
  """Name of a case -> where its records come from."""
  start = f"file://{place}" if remote else str(place)
  found: dict[str, DataSource] = {}
  if not remote:
    found["folder random"] = folder.Source(f"{start}/files")
  for order, mixed in (("random", 0), ("blocks", MIXED)):
    tars = f"{start}/tars/*.tar"
    found[f"tars {order}"] = webdataset.Source(tars, shuffle_blocks=mixed)
    for ending in ("parquet", "arrow"):
      path = f"{start}/tables/a.{ending}"
      source = huggingface.Source(path, shuffle_blocks=mixed)
      found[f"{ending} {order}"] = source
  return found


def reading(source: DataSource, batch: int, seconds: float) -> Iterator[float]:
  """Records per second of one thread, and MB of memory."""
  order = pipeline.shuffled(source, 0, batch).repeat(None)
  with Memory() as memory:
    started, made = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
      _ = source[order[made]]
      made += 1
    yield made / (time.perf_counter() - started)
  yield memory.megabytes


@contextlib.contextmanager
def delayed(seconds: float) -> Iterator[None]:
  """As long as it lasts, requests to a bucket take so much longer."""
  at_once = files_lib.retried

  def retried(call: Callable[[], Any]) -> Any:
    time.sleep(seconds)
    return at_once(call)

  files_lib.retried = retried
  try:
    yield
  finally:
    files_lib.retried = at_once


def batches(
  source: DataSource, batch: int, seconds: float, threads: int
) -> float:
  """Views per second of the whole pipeline."""
  reading = Reading(num_threads=threads, prefetch=threads)
  with pipeline.train_batches(
    source, Preprocess(224), batch_size=batch, seed=0, reading=reading
  ) as stream:
    for _ in range(threads + 1):  # built before the clock starts
      next(stream)
    started, made = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
      next(stream)
      made += batch
    return made / (time.perf_counter() - started)


def main(argv: Sequence[str] | None = None) -> None:
  """Prints the machine and the table."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--count", type=int, default=2000, help="of photographs")
  parser.add_argument("--batch", type=int, default=64, help="of views")
  parser.add_argument("--seconds", type=float, default=3.0, help="per figure")
  parser.add_argument("--delay", type=float, default=0.0, help="of requests")
  args = parser.parse_args(argv)
  cv2.setNumThreads(1)
  print(machine())
  with tempfile.TemporaryDirectory() as name:
    place = Path(name)
    for part in DIRS:
      (place / part).mkdir()
    photographs(place / "files", args.count)
    files = sorted((place / "files").iterdir())
    write_tars(files, place / "tars")
    write_tables(files, place / "tables")
    print(f"{'':16s}  read/s      MB  views/s")
    for case, source in sources(place, args.delay > 0).items():
      with delayed(args.delay):
        rate, megabytes = reading(source, args.batch, args.seconds)
        threads = 32 if args.delay else 8
        views = batches(source, args.batch, args.seconds, threads)
      print(f"{case:16s} {rate:7.0f} {megabytes:7.0f} {views:8.0f}", flush=True)


if __name__ == "__main__":
  main()
