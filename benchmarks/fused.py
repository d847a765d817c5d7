"""Inference of merged networks, against the same ones with their branches.

python -m benchmarks.fused [--models repvit_m0_9 mobileone_s0] [--size 224]

'trained' is the network as it is trained; 'fused' has its branches merged and
its batch normalisation in the convolutions, as `kd-jax export --fused` writes
it. Outputs have to agree. Both run in turns; the ratio is the median over the
rounds of the processor time of all threads.

Measured on one core of a shared VM, jax 0.10.2, float32, one image of 224 px, 7
to 200 rounds; CPU ms, and the ratio of CPU times:

  mobileone_s0             trained 243.1, fused  4.6; 0.019
  repvgg_a0                trained  19.1, fused 14.9; 0.782
  repvit_m0_9              trained  94.6, fused 46.0; 0.486
  fastvit_t8               trained  17.6, fused 17.1; 0.969
  mobilenetv4_conv_small   trained   4.4, fused  4.1; 0.934
  resnet18                 trained  40.4, fused 39.5; 0.972

The last two have no branches, and XLA already joins a normalisation with what
follows. MobileNetV4 gains because windows of one pixel are products of matrices
in the fused network; without that its ratio was 1.02.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import _command_line
from kd_jax import models, trees
from kd_jax.models import fold, fuse
from kd_jax.models.backbone import Backbone, variable_shapes

MODELS = (
  "mobileone_s0",
  "repvgg_a0",
  "repvit_m0_9",
  "fastvit_t8",
  "mobilenetv4_conv_small",
  "resnet18",
)
NEAR = 1e-4
"""Largest difference of outputs, relative to the largest."""

Run = Callable[[np.ndarray], Any]


def drawn(model: Backbone) -> dict[str, Any]:
  """Variables with statistics as after some training."""
  rng, flat = np.random.default_rng(0), {}
  for path, leaf in trees.flatten(variable_shapes(model)).items():
    if path.endswith("kernel"):
      fan_in = np.prod(leaf.shape[:-1])
      value = rng.normal(size=leaf.shape) / np.sqrt(fan_in)
    else:
      value = rng.uniform(0.5, 1.5, leaf.shape)
    flat[path] = np.float32(value)
  return trees.unflatten(flat)


def sides(name: str) -> tuple[Run, Run]:
  """(trained, fused): compiled functions of images."""
  model = models.create_model(name)
  variables = drawn(model)
  plain = jax.jit(lambda x: model.apply(variables, x)["logits"])
  other, merged = model, variables
  if fuse.can_merge(model):
    other, merged = fuse.merge(model, variables)
  merged, context = fold.fold(other, merged)

  def run(x: jax.Array) -> jax.Array:
    with context():
      return other.apply(merged, x)["logits"]

  return plain, jax.jit(run)


def compare(name: str, images: np.ndarray, rounds: int) -> float:
  """Prints a line; returns the ratio fused / trained."""
  pair = sides(name)
  want, got = (np.asarray(run(images)) for run in pair)
  gap = float(np.abs(got - want).max() / np.abs(want).max())
  if not gap < NEAR:
    raise ValueError(f"{name}: the outputs are {gap:.1e} apart")
  times: list[tuple[float, float]] = []
  for _ in range(rounds):
    trained, fused = (_seconds(run, images) for run in pair)
    times.append((trained, fused))
  ratio = statistics.median(b / a for a, b in times)
  trained, fused = (statistics.median(t) for t in zip(*times, strict=True))
  print(
    f"{name:<24} trained {1e3 * trained:7.1f} ms  fused {1e3 * fused:7.1f} ms"
    f"  fused / trained {ratio:.3f}  outputs {gap:.0e} apart",
    flush=True,
  )
  return ratio


def _seconds(run: Run, images: np.ndarray) -> float:
  start = time.process_time()
  jax.block_until_ready(run(images))
  return time.process_time() - start


def main(arguments: Sequence[str] | None = None) -> None:
  """Compares the models that the arguments name."""
  parser = _command_line.parser(__doc__, size=224, batch=1, rounds=15)
  parser.add_argument("--models", nargs="+", default=list(MODELS))
  given = parser.parse_args(arguments)
  rng = np.random.default_rng(1)
  shape = (given.batch, given.size, given.size, 3)
  images = rng.random(shape, np.float32)
  for name in given.models:
    compare(name, images, given.rounds)


if __name__ == "__main__":
  main()
