"""A detector's train step and its answers, whatever is in the images.

  python -m benchmarks.detection_step [--batch 2] [--size 160] [--rounds 5]

Faster R-CNN on ResNet-18 with a feature pyramid. The same compiled programs see
images without objects and with 100 each: shapes do not depend on them, and so
should the time. Columns: the fastest round in milliseconds, and programs
compiled.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kd_jax
from benchmarks import _command_line
from kd_jax.transfer.detection import detector, losses
from kd_jax.types import Objects

MOST = 100  # objects per image


def truth(count: int, batch: int, size: int) -> Objects:
  """`count` random objects in each image."""
  rng = np.random.default_rng(count)
  corner = rng.uniform(0, 0.8 * size, (batch, MOST, 2))
  boxes = np.concatenate([corner, corner + rng.uniform(8, size / 5, (2,))], -1)
  known = np.arange(MOST) < count
  return Objects(
    boxes=jnp.float32(boxes * known[:, None]),
    classes=jnp.int32(np.where(known, rng.integers(0, 20, (batch, MOST)), -1)),
    masks=jnp.zeros((batch, MOST, 0, 0), jnp.uint8),
    frames=jnp.float32(boxes),
    size=jnp.full((batch, 2), size, jnp.int32),
  )


def fastest(rounds: int, call: Callable[..., Any], *given: Any) -> float:
  """Milliseconds of the fastest of some rounds."""
  times = []
  for _ in range(rounds + 1):  # the first may compile
    start = time.perf_counter()
    jax.block_until_ready(call(*given))
    times.append(1000 * (time.perf_counter() - start))
  return min(times[1:])


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the benchmark."""
  parser = _command_line.parser(__doc__, batch=2, size=160, rounds=5)
  args = parser.parse_args(argv)
  net = kd_jax.create_model("resnet18", num_classes=0)
  model = detector.build(net, {"name": "fpn", "num_classes": 20})
  rng = np.random.default_rng(0)
  shape = (args.batch, args.size, args.size, 3)
  image = jnp.asarray(rng.random(shape, np.float32))
  init = functools.partial(model.init, train=False)
  variables = jax.jit(init)(jax.random.key(0), image[:1])

  @jax.jit
  def step(params: Any, y: Objects, key: jax.Array) -> Any:
    def loss(params: Any) -> jax.Array:
      taps, _ = model.apply(
        {**variables, "params": params},
        image,
        train=True,
        truth=y,
        mutable=["batch_stats"],
        rngs={"dropout": key},
      )
      return sum(losses.terms(taps, y, model).values())

    return jax.grad(loss)(params)

  answer = jax.jit(functools.partial(model.apply, train=False))
  found = {}
  for count in (0, MOST):
    y = truth(count, args.batch, args.size)
    key = jax.random.key(1)
    found[count] = fastest(args.rounds, step, variables["params"], y, key)
  print(f"{jax.devices()[0].device_kind}\n{'':24}      ms programs")
  for count, ms in found.items():
    name = f"step, {count} objects"
    print(f"{name:24} {ms:7.1f} {step._cache_size():8d}")
  ms = fastest(args.rounds, answer, variables, image)
  print(f"{'answer':24} {ms:7.1f} {answer._cache_size():8d}")
  print(f"{'100 objects / none':24} {found[MOST] / found[0]:7.2f}")


if __name__ == "__main__":
  main()
