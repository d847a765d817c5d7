"""The streaming fit of a basis against the SVD of all rows.

python -m benchmarks.svd_fit [--rows 5000 10000 20000 40000] [--dim 2048]
"""

from __future__ import annotations

import argparse
import ctypes
import json
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
BATCH = 1000
CASES = ("stream", "full32", "full64")


class Rows:
  """Seeded rows with a power-law spectrum, rotated, about a mean.

  Standard deviations fall as i^-0.75 (98% of the variance in 512 of 2048
  directions) and by another factor of 1 + `gap` after the first 512.
  """

  def __init__(self, dim: int, gap: float) -> None:
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim), np.float32))[0]
    std = np.arange(1, dim + 1) ** -0.75
    std[WIDTH:] /= 1 + gap
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


def stream(rows: Rows, num_rows: int, ready: Callable[[], None]) -> tuple:
  """(seconds, leading directions, singular values) of the streaming fit."""
  dim = len(rows.mean)
  spec = jax.eval_shape(lambda: basis.init(dim))
  feature, mask = (
    jax.ShapeDtypeStruct(s, np.float32) for s in ((BATCH, dim), (BATCH,))
  )
  # Compiled, never run, so that no buffer of it is counted as old memory.
  update = jax.jit(basis.update, donate_argnums=0)
  update = update.lower(spec, feature, mask).compile()
  mask = np.ones(BATCH, np.float32)
  ready()
  state, seconds = basis.init(dim), 0.0
  for batch in rows.batches(num_rows):
    start = time.perf_counter()
    state = jax.block_until_ready(update(state, batch, mask))
    seconds += time.perf_counter() - start
  start = time.perf_counter()
  fitted = basis.finish(state)
  seconds += time.perf_counter() - start
  return seconds, fitted.basis[:, :WIDTH], fitted.singular_values


def full(
  rows: Rows, num_rows: int, ready: Callable[[], None], *, dtype: type
) -> tuple:
  """(seconds, leading directions, singular values) of the SVD of all rows.

  As in the code of KDEP, with all of U; centred in place, which that is not.
  """
  ready()
  x = np.empty((num_rows, len(rows.mean)), dtype)
  for i, batch in enumerate(rows.batches(num_rows)):
    x[i * BATCH : i * BATCH + len(batch)] = batch
  start = time.perf_counter()
  x -= x.mean(axis=0)
  _, singular, vt = np.linalg.svd(x, full_matrices=False)
  return time.perf_counter() - start, vt[:WIDTH].T, singular


def run_case(case: str, num_rows: int, dim: int, gap: float, out: Path) -> None:
  """Measures one case in this process; prints JSON, directions to `out`."""
  rows = Rows(dim, gap)
  next(rows.batches(BATCH))
  scipy.linalg.eigh(np.eye(WIDTH), driver="evr")
  np.linalg.svd(np.eye(WIDTH))
  before = []

  def ready() -> None:
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before.append(memory("VmRSS"))

  if case == "stream":
    seconds, vectors, singular = stream(rows, num_rows, ready)
  else:
    dtype = {"full32": np.float32, "full64": np.float64}[case]
    seconds, vectors, singular = full(rows, num_rows, ready, dtype=dtype)
  peak = memory("VmHWM") - before[0]
  np.save(out, vectors)
  gap = float(singular[WIDTH - 1] / singular[WIDTH] - 1)
  print(json.dumps({"seconds": seconds, "peak_mb": peak, "gap": gap}))


def sine(a: np.ndarray, b: np.ndarray) -> float:
  """Sine of the largest principal angle between two column spaces."""
  a, b = (np.linalg.qr(x.astype(np.float64))[0] for x in (a, b))
  return float(np.linalg.norm(a - b @ (b.T @ a), 2))


def measure(num_rows: int, dim: int, gap: float) -> dict[str, dict]:
  """All cases for one number of rows, each in a process of its own."""
  results, vectors = {}, {}
  with tempfile.TemporaryDirectory() as folder:
    for case in CASES:
      out = Path(folder) / f"{case}.npy"
      command = [sys.executable, "-m", "benchmarks.svd_fit", "--case", case]
      command += ["--rows", str(num_rows), "--dim", str(dim)]
      command += ["--gaps", str(gap), "--out", str(out)]
      done = subprocess.run(command, capture_output=True, text=True)
      if done.returncode:
        raise ValueError(f"{case} failed:\n{done.stderr}")
      results[case] = json.loads(done.stdout)
      vectors[case] = np.load(out)
  for case in CASES:
    results[case]["sine"] = sine(vectors[case], vectors["full64"])
  return results


def main() -> None:
  """Prints the table, or with --case measures one line of it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    "--rows", type=int, nargs="+", default=[5000, 10000, 20000, 40000]
  )
  parser.add_argument("--dim", type=int, default=2048)
  parser.add_argument("--gaps", type=float, nargs="+", default=[0.01, 0.0])
  parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
  parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.case:
    run_case(args.case, args.rows[0], args.dim, args.gaps[0], args.out)
    return
  print("gap    rows  case    seconds  peak MB  time x  memory x  sine")
  for gap in args.gaps:
    for num_rows in args.rows:
      results = measure(num_rows, args.dim, gap)
      mine = results["stream"]
      for case, r in results.items():
        print(
          f"{r['gap']:.4f} {num_rows:6d} {case:7s} {r['seconds']:7.2f} "
          f"{r['peak_mb']:8.0f} {r['seconds'] / mine['seconds']:7.1f} "
          f"{r['peak_mb'] / mine['peak_mb']:9.1f}  {r['sine']:.1e}",
          flush=True,
        )


if __name__ == "__main__":
  main()
