"""The streaming fit of a basis against the SVD of all rows.

  python -m benchmarks.svd_fit [--rows 5000 10000 20000 40000] [--dim 2048]

stream: this package. authors32: as in the code of KDEP, which keeps the list
of batches, the matrix and the centred matrix. lean32, lean64: the least that
a full SVD needs, one matrix centred in place. Peak memory is above that of
the process after imports, compilation and one batch; generating rows is not
timed. `gap` is s_512 / s_513 - 1 of the rows as drawn (nothing was done to
widen it), `sine` that of the largest principal angle between the leading 512
directions and those of lean64.

Measured on one core of a busy 2-core CPU (under `taskset -c 1`: wall time is
other programs' too, so compare processor seconds):

   rows case       cpu s  peak MB  x: cpu peak      gap    sine
   5000 stream      2.09       83                2.2e-03  1.8e-04
   5000 authors32   3.96      269     1.9   3.2  2.2e-03  1.2e-04
   5000 lean32      3.67      193     1.8   2.3  2.2e-03  1.2e-04
   5000 lean64      9.02      386     4.3   4.6  2.2e-03
  10000 stream      2.73       84                1.6e-03  2.4e-04
  10000 authors32   7.24      465     2.7   5.5  1.6e-03  1.3e-04
  10000 lean32      6.11      311     2.2   3.7  1.6e-03  1.3e-04
  10000 lean64     11.88      620     4.4   7.3  1.6e-03
  20000 stream      3.34       79                2.2e-04  3.7e-04
  20000 authors32  12.16      854     3.6  10.8  2.2e-04  5.0e-04
  20000 lean32     10.31      542     3.1   6.8  2.2e-04  5.0e-04
  20000 lean64     21.06     1087     6.3  13.7  2.2e-04
  40000 stream      5.30       81                2.2e-03  6.8e-05
  40000 authors32  22.45     1637     4.2  20.3  2.2e-03  7.4e-05
  40000 lean32     22.25     1011     4.2  12.5  2.2e-03  7.4e-05
  40000 lean64     40.53     2025     7.6  25.1  2.2e-03

The streaming fit spends about 1.7 s and two 2048 x 2048 float64 matrices (its
peak) on the eigenvectors, whatever the number of rows.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import scipy.linalg

from kd_jax.align import basis

WIDTH = 512
BATCH = 512


class Rows:
  """Seeded rows with a power-law spectrum, rotated, about a mean.

  Standard deviations fall as i^-0.75, smoothly: 98% of the variance lies in
  512 of 2048 directions, and nothing separates the 512th from the 513th.
  """

  def __init__(self, dim: int) -> None:
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim), np.float32))[0]
    std = np.arange(1, dim + 1) ** -0.75
    self.mean = rng.standard_normal(dim, np.float32)
    self.map = (std[:, None] * rotation).astype(np.float32)

  def batches(self, num_rows: int) -> Iterator[np.ndarray]:
    """`num_rows` rows in batches; the same ones every time."""
    rng = np.random.default_rng(1)
    for start in range(0, num_rows, BATCH):
      size = (min(BATCH, num_rows - start), len(self.mean))
      yield rng.standard_normal(size, np.float32) @ self.map + self.mean


def memory(field: str) -> float:
  """A field of /proc/self/status in MB: VmRSS is now, VmHWM the peak."""
  for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith(field + ":"):
      return int(line.split()[1]) / 1024
  raise ValueError(f"/proc/self/status has no {field}; this needs Linux")


class Clock:
  """Wall and processor seconds, of the parts that are not generating rows."""

  wall = cpu = 0.0

  def __enter__(self) -> None:
    self._start = time.perf_counter(), time.process_time()

  def __exit__(self, *_: object) -> None:
    self.wall += time.perf_counter() - self._start[0]
    self.cpu += time.process_time() - self._start[1]


def stream(
  rows: Rows, num_rows: int, clock: Clock, ready: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
  """(leading directions, singular values) of the streaming fit."""
  dim = len(rows.mean)
  # Compiled, never run, so that no buffer of it is counted as old memory.
  init = jax.jit(lambda: basis.init(dim)).lower().compile()
  spec = jax.eval_shape(lambda: basis.init(dim))
  feature, mask = (
    jax.ShapeDtypeStruct(s, np.float32) for s in ((BATCH, dim), (BATCH,))
  )
  update = jax.jit(basis.update, donate_argnums=0)
  update = update.lower(spec, feature, mask).compile()
  padded = next(rows.batches(BATCH))
  ready()
  state = init()
  for batch in rows.batches(num_rows):
    mask = (np.arange(BATCH) < len(batch)).astype(np.float32)
    padded[: len(batch)] = batch
    with clock:
      state = jax.block_until_ready(update(state, padded, mask))
  with clock:
    fitted = basis.finish(state)
  return fitted.basis[:, :WIDTH], fitted.singular_values


def authors(
  rows: Rows, num_rows: int, clock: Clock, ready: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
  """(leading directions, singular values) as the code of KDEP gets them.

  float32; it keeps the list of batches, the matrix and the centred matrix
  while LAPACK's gesdd, which torch.svd calls, works on its own copy.
  """
  ready()
  batches = list(rows.batches(num_rows))
  with clock:
    x = np.concatenate(batches)
    centred = x - x.mean(axis=0)
    _, singular, vt = scipy.linalg.svd(
      centred, full_matrices=False, check_finite=False
    )
  return vt[:WIDTH].T, singular


def lean(
  rows: Rows,
  num_rows: int,
  clock: Clock,
  ready: Callable[[], None],
  *,
  dtype: type,
) -> tuple[np.ndarray, np.ndarray]:
  """As `authors`, with one matrix that is filled and centred in place."""
  ready()
  x = np.empty((num_rows, len(rows.mean)), dtype)
  for i, batch in enumerate(rows.batches(num_rows)):
    x[i * BATCH : i * BATCH + len(batch)] = batch
  with clock:
    x -= x.mean(axis=0)
    _, singular, vt = scipy.linalg.svd(
      x, full_matrices=False, check_finite=False
    )
  return vt[:WIDTH].T, singular


CASES = {
  "stream": stream,
  "authors32": authors,
  "lean32": functools.partial(lean, dtype=np.float32),
  "lean64": functools.partial(lean, dtype=np.float64),
}


def run_case(case: str, num_rows: int, dim: int, out: Path) -> None:
  """Measures one case in this process; prints JSON, directions to `out`."""
  rows, clock = Rows(dim), Clock()
  next(rows.batches(BATCH))
  for dtype in (np.float32, np.float64):
    scipy.linalg.svd(np.eye(WIDTH, dtype=dtype))
  scipy.linalg.eigh(np.eye(WIDTH), driver="evr")
  before = []

  def ready() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before.append(memory("VmRSS"))

  vectors, singular = CASES[case](rows, num_rows, clock, ready)
  result = {
    "wall": clock.wall,
    "cpu": clock.cpu,
    "peak": memory("VmHWM") - before[0],
    "gap": float(singular[WIDTH - 1] / singular[WIDTH] - 1),
  }
  np.save(out, vectors)
  print(json.dumps(result))


def sine(a: np.ndarray, b: np.ndarray) -> float:
  """Sine of the largest principal angle between two column spaces."""
  a, b = (np.linalg.qr(x.astype(np.float64))[0] for x in (a, b))
  return float(np.linalg.norm(a - b @ (b.T @ a), 2))


def measure(num_rows: int, dim: int) -> dict[str, dict[str, float]]:
  """All cases for one number of rows, each in a process of its own."""
  # Freed buffers go back to the system at once, in every case, so that the
  # peak is of live memory and not of what malloc happens to keep.
  environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
  results, vectors = {}, {}
  with tempfile.TemporaryDirectory() as folder:
    for case in CASES:
      out = Path(folder) / f"{case}.npy"
      command = [sys.executable, "-m", "benchmarks.svd_fit", "--case", case]
      command += ["--rows", str(num_rows), "--dim", str(dim)]
      done = subprocess.run(
        [*command, "--out", str(out)],
        capture_output=True,
        text=True,
        env=environment,
      )
      if done.returncode:
        raise ValueError(f"{case} failed:\n{done.stderr}")
      results[case] = json.loads(done.stdout)
      vectors[case] = np.load(out)
  for case in CASES:
    results[case]["sine"] = sine(vectors[case], vectors["lean64"])
  return results


def main() -> None:
  """Prints the table, or with --case measures one line of it."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument(
    "--rows", type=int, nargs="+", default=[5000, 10000, 20000, 40000]
  )
  parser.add_argument("--dim", type=int, default=2048)
  parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
  parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.case:
    run_case(args.case, args.rows[0], args.dim, args.out)
    return
  print(" rows case       wall s   cpu s  peak MB  x: wall cpu peak  gap sine")
  for num_rows in args.rows:
    results = measure(num_rows, args.dim)
    mine = results["stream"]
    for case, r in results.items():
      times = [f"{r[k] / mine[k]:5.1f}" for k in ("wall", "cpu", "peak")]
      print(
        f"{num_rows:5d} {case:9s} {r['wall']:7.2f} {r['cpu']:7.2f} "
        f"{r['peak']:8.0f}  {' '.join(times)}  {r['gap']:.1e} {r['sine']:.1e}",
        flush=True,
      )


if __name__ == "__main__":
  main()
