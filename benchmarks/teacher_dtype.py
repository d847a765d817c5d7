"""What a teacher's features lose where its weights are kept in bfloat16.

  python -m benchmarks.teacher_dtype [--teacher NAME --weights WEIGHTS]

Images are tiles of the two photographs that scikit-learn ships. `feature` is
what KDEP aligns; a figure is the root mean square of its change over that of
its distance from the mean. Rows: `weights`, kept in bfloat16 and computed with
in float32 (teacher.param_dtype=bfloat16); `compute`, kept in float32 and
computed with in bfloat16 (dtype=bfloat16); `both`. Without arguments, networks
with random weights; measured on a CPU:

teacher                          weights   compute      both
resnet50                          0.0397    0.0393    0.0452
vit_small_patch16_224             0.0109    0.0172    0.0172
swin_tiny_patch4_window7_224      0.0146    0.0139    0.0159

So a run that computes in bfloat16 loses next to nothing more by keeping the
weights so. Features of random networks lie close together for any two images,
which makes the figures large; give real weights for those that count.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from sklearn.datasets import load_sample_images

from kd_jax.build.networks import kept_as
from kd_jax.teachers import online, random
from kd_jax.types import Batch, Variables

TEACHERS = ("resnet50", "vit_small_patch16_224", "swin_tiny_patch4_window7_224")
ROWS = {
  "weights": ("bfloat16", "float32"),
  "compute": ("float32", "bfloat16"),
  "both": ("bfloat16", "bfloat16"),
}
SIDE = 224


def tiles() -> Float[np.ndarray, "n s s 3"]:
  """Tiles of the photographs, in [0, 1]."""
  found = [
    photo[top : top + SIDE, left : left + SIDE]
    for photo in load_sample_images().images
    for top in range(0, photo.shape[0] - SIDE + 1, 64)
    for left in range(0, photo.shape[1] - SIDE + 1, 64)
  ]
  return np.stack(found).astype(np.float32) / 255


def load(
  name: str, weights: str, fields: Mapping[str, Any]
) -> tuple[online.Source, Variables]:
  """The teacher; with random weights if none are given."""
  if weights:
    return online.load(name, weights, fields)
  return random.load(name, "", fields)


def features(
  name: str, weights: str, images: np.ndarray, param: str, compute: str
) -> Float[np.ndarray, "n d"]:
  """Of all images, with weights and activations of these dtypes."""
  source, variables = load(name, weights, {"dtype": compute})
  kept = kept_as(param, source, variables)

  @jax.jit
  def run(variables: Variables, image: jax.Array) -> jax.Array:
    ones = np.ones(len(image), np.float32)
    frozen = {"teacher": variables, "artifact": {}}
    return source(frozen, Batch(image, ones, ones)).taps["feature"]

  parts = np.array_split(images, -(-len(images) // 8))
  found = [np.asarray(run(kept, part), np.float64) for part in parts]
  return np.concatenate(found)


def changes(name: str, weights: str, images: np.ndarray) -> dict[str, float]:
  """{row: relative change of the feature}."""
  want = features(name, weights, images, "float32", "float32")
  size = np.sqrt(np.square(want - want.mean(0)).mean())
  found = {}
  for row, (param, compute) in ROWS.items():
    got = features(name, weights, images, param, compute)
    found[row] = float(np.sqrt(np.square(got - want).mean()) / size)
  return found


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--teacher", default="")
  parser.add_argument("--weights", default="")
  args = parser.parse_args()
  print(f"{'teacher':30s}" + "".join(f"{row:>10s}" for row in ROWS))
  for name in (args.teacher,) if args.teacher else TEACHERS:
    found = changes(name, args.weights, tiles())
    print(f"{name:30s}" + "".join(f"{x:10.4f}" for x in found.values()))


if __name__ == "__main__":
  main()
