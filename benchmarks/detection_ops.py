"""What suppression, sampling and RoIAlign cost for one image.

  python -m benchmarks.detection_ops [--rounds 5] [--side 800] [--channels 256]

Boxes are random, of all sizes, on an image of `side` by 1.68 `side` pixels; the
map has a quarter of that, 512 boxes are pooled to 7 x 7. Columns: seconds to
compile, the fastest round in milliseconds, and MiB for what is in between.
On two cores of an AMD EPYC: 1.2, 37, 7, 440 and 1250 ms, each compiled in .3 s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _command_line
from kd_jax.transfer.detection.ops import matching, roi_align, suppression


def random_boxes(number: int, width: int, height: int) -> jax.Array:
  """(number, 4), some of them cut off at the border."""
  generator = np.random.default_rng(number)
  centre = generator.uniform(0, 1, (number, 2)) * [width, height]
  half = generator.exponential(height / 16, (number, 2)) + 1
  boxes = np.concatenate([centre - half, centre + half], -1)
  return jnp.float32(np.clip(boxes, 0, [width, height, width, height]))


def measure(
  name: str, rounds: int, call: Callable[..., jax.Array], *given: jax.Array
) -> None:
  """Prints a line of the table."""
  start = time.perf_counter()
  compiled = jax.jit(call).lower(*given).compile()
  compiling = time.perf_counter() - start
  times = []
  for _ in range(rounds + 1):
    start = time.perf_counter()
    jax.block_until_ready(compiled(*given))
    times.append(1000 * (time.perf_counter() - start))
  memory = compiled.memory_analysis()
  between = memory.temp_size_in_bytes / 2**20 if memory else float("nan")
  print(f"{name:20} {compiling:6.2f} {min(times[1:]):9.1f} {between:7.0f}")


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the benchmark."""
  parser = _command_line.parser(__doc__, rounds=5, side=800, channels=256)
  args = parser.parse_args(argv)
  height, width = args.side, round(1.68 * args.side)
  print(f"{jax.devices()[0].device_kind}\n{'':20} compile        ms     MiB")
  for number in (1000, 12000):
    boxes = random_boxes(number, width, height)
    valid = jnp.ones(number, bool)
    keep = lambda b, v: suppression.keep(b, v, 0.7)  # noqa: E731
    measure(f"suppression {number}", args.rounds, keep, boxes, valid)
  label = jnp.asarray(np.arange(268569) % 997 == 0, jnp.int32)
  sample = lambda key, x: matching.chosen(key, x, 256, 0.5)  # noqa: E731
  key = jax.random.key(0)
  measure("sampling of 268569", args.rounds, sample, key, label)
  shape = (height // 4, width // 4, args.channels)
  x = jnp.float32(np.random.default_rng(0).normal(size=shape))
  boxes = random_boxes(512, width, height)
  pool = lambda x, b: roi_align.pool(x, b, 0.25, 7)  # noqa: E731
  both = jax.grad(lambda x, b: jnp.sum(pool(x, b) ** 2))
  measure("RoIAlign", args.rounds, pool, x, boxes)
  measure("RoIAlign, gradient", args.rounds, both, x, boxes)


if __name__ == "__main__":
  main()
