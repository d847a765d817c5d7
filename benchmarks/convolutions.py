"""Which form of a convolution and of its gradients is fastest, shape by shape.

taskset -c 1 python -m benchmarks.convolutions [--rounds 7] [--batch 32]

GFLOP/s of the shortest of several runs, 'XLA' is the native operation; the
form that `kd_jax.models.blocks.convolutions.chosen` takes has a star. Its rules
are few and coarse, so that they hold on other CPUs too: a line is worth
changing them where the star is far from the best.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from benchmarks import _command_line
from kd_jax.models.blocks import convolutions, depthwise
from kd_jax.models.blocks.convolutions import Forms, Window

# (side of the map, channels, features, kernel, stride, groups)
SHAPES = (
  (56, 16, 96, 1, 1, 1),
  (28, 144, 24, 1, 1, 1),
  (28, 64, 256, 1, 1, 1),
  (14, 1024, 256, 1, 1, 1),
  (7, 256, 512, 1, 2, 1),
  (14, 32, 192, 1, 1, 1),
  (24, 3, 8, 3, 1, 1),
  (24, 8, 8, 3, 1, 1),
  (112, 3, 64, 7, 2, 1),
  (112, 3, 32, 3, 2, 1),
  (56, 64, 64, 3, 1, 1),
  (28, 128, 128, 3, 1, 1),
  (14, 256, 256, 3, 1, 1),
  (7, 512, 512, 3, 1, 1),
  (4, 512, 512, 3, 1, 1),
  (2, 512, 512, 3, 1, 1),
  (1, 512, 512, 3, 1, 1),
  (3, 128, 128, 5, 1, 1),
  (56, 64, 128, 3, 2, 1),
  (28, 128, 256, 3, 2, 1),
  (14, 256, 512, 3, 2, 1),
  (28, 40, 80, 2, 2, 1),
  (28, 48, 48, 3, 1, 2),
  (14, 256, 256, 3, 1, 32),
)
LONG = 2.0
"""Seconds after which a form is not run again."""


def main(argv: Sequence[str] | None = None) -> None:
  """Prints a line per shape and kind: the rate of every form."""
  parser = _command_line.parser(__doc__, rounds=7, batch=32, shapes=len(SHAPES))
  args = parser.parse_args(argv)
  for shape in SHAPES[: args.shapes]:
    side, channels, features, size, stride, groups = shape
    print(
      f"\n{side}x{side}, {channels} -> {features}, kernel {size}, stride "
      f"{stride}, groups {groups}"
    )
    for kind, rates in compare(shape, args.batch, args.rounds):
      print(f"  {kind:8}{rates}", flush=True)


def compare(
  shape: tuple[int, ...], batch: int, rounds: int
) -> list[tuple[str, str]]:
  """[(forward, weight or input, the rate of every form)]."""
  side, channels, features, size, stride, groups = shape
  window = Window(stride, 1, (size - 1) // 2)
  rng = np.random.default_rng(0)
  x = rng.standard_normal((batch, side, side, channels), np.float32)
  kernel = (size, size, channels // groups, features)
  w = rng.standard_normal(kernel, np.float32)
  y = jax.eval_shape(functools.partial(depthwise.native, window=window), x, w)
  given = tuple(map(jax.device_put, (x, w, rng.standard_normal(y.shape, "f4"))))
  flops = 2 * y.size * size * size * channels // groups
  taken = convolutions.chosen(x.shape, w.shape, window)
  found = []
  foldable = convolutions.forms.fold(x.shape, w.shape, window) > 1
  for kind, names in forms(groups, foldable).items():
    rates = []
    for name in names:
      one = Forms()._replace(**{kind: name})
      best = seconds(function(kind, one, window), given, rounds)
      star = "*" if name == getattr(taken, kind) else ""
      rates.append(f"{name or 'XLA'}{star} {flops / best / 1e9:.1f}")
    found.append((kind, "  ".join(rates)))
  return found


def forms(groups: int, foldable: bool) -> dict[str, tuple[str, ...]]:
  """{kind: names of the forms that can compute it}; '' is XLA's own."""
  if groups > 1:
    return {"weight": ("", "bands")}
  found = {
    "forward": ("", *convolutions.FORWARD),
    "weight": ("", *convolutions.WEIGHT),
    "input": ("", *convolutions.INPUT),
  }
  return {
    kind: tuple(
      name for name in dict.fromkeys(names) if foldable or name != "folded"
    )
    for kind, names in found.items()
  }


def function(kind: str, one: Forms, window: Window) -> Callable[..., jax.Array]:
  """(x, w, gradient of the result) -> what `kind` says, by this form."""
  if kind == "forward":
    form = convolutions.FORWARD[one.forward]
    return jax.jit(lambda x, w, g: form(x, w, window))
  by = functools.partial(convolutions.by_forms, window=window, found=one)
  return jax.jit(lambda x, w, g: by(x, w, g)[("input", "weight").index(kind)])


def seconds(
  call: Callable[..., jax.Array], given: tuple[jax.Array, ...], rounds: int
) -> float:
  """Processor time of the shortest run, after a first one that compiles."""
  jax.block_until_ready(call(*given))
  best, spent = float("inf"), 0.0
  for _ in range(rounds):
    start = time.process_time()
    jax.block_until_ready(call(*given))
    took = time.process_time() - start
    best, spent = min(best, took), spent + took
    if spent > LONG:
      break
  return best


if __name__ == "__main__":
  main()
