"""What a student is worth on digits that pre-training had no labels of."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from benchmarks import _digits
from benchmarks._finetune import finetune
from configs.common_scenes import DOWNSTREAM, SIZE, scenes
from kd_jax.build import images
from kd_jax.evals import probe
from kd_jax.evals.features import Features
from kd_jax.tasks.pretrain import Result
from kd_jax.train.views import as_unit
from kd_jax.transfer import confusion
from kd_jax.types import STAGES, Array, Taps

DRAWS = 3  # of the labelled digits
STEPS = 60  # of fine-tuning on them
LABELLED = {"train": 1000, "test": 1000}
PER_CLASS = 20  # labelled scenes of each digit
SCENE_DRAWS = 10
MASKS = {"train": 60, "test": 150}
_BATCH = 100  # images at a time
_RIDGE = 1e-3  # of the mean variance of the features
_SEEDS = {"train": 3, "test": 4, "masks": 6}  # of scenes

Figure = Callable[[Result], float]


@dataclasses.dataclass(frozen=True)
class Judge:
  """Measures students of one set of images.

  Attributes:
    figures: by name, beside kNN, which the run itself measures.
  """

  figures: Mapping[str, Figure]

  def __call__(self, student: Result) -> dict[str, float]:
    """Figures in [0, 1]."""
    found = {"kNN": float(student.metrics["eval/knn"])}
    return found | {name: own(student) for name, own in self.figures.items()}


def judge(data: str, *, small: bool) -> Judge:
  """That of 'digits', 'scenes' or 'teachers'.

  Digits are few and nearly solved: the whole network is fine-tuned. Scenes
  have classifiers of frozen features, of images and of pixels; the student of
  two teachers one that the run itself measures, with all labels.
  """
  if data == "scenes":
    labels = f"{PER_CLASS * len(DOWNSTREAM)} labels"
    return Judge({labels: linear_labels, "masks": linear_masks})
  if data == "teachers":
    return Judge({"linear": lambda run: float(run.metrics["eval/probe"])})
  draws, steps = (1, 4) if small else (DRAWS, STEPS)
  transfer = finetune(_digits.finetune(steps))

  def tuned(student: Result) -> float:
    runs = [transfer.run(student.variables, draw) for draw in range(draws)]
    return float(np.mean(runs))

  return Judge({"25 labels": tuned})


def linear_labels(student: Result) -> float:
  """Accuracy of a linear classifier of pooled features, mean over draws."""
  model = student.student

  @jax.jit
  def pooled(image: Array) -> Array:
    return model.apply(student.variables, as_unit(image), train=False)["pooled"]

  sides = {}
  for split, count in LABELLED.items():
    records = _records(split, count, _SEEDS[split])
    sides[split] = Features(_in_parts(pooled, records.image), records.label)
  train, test = sides["train"], sides["test"]
  found = []
  for draw in range(SCENE_DRAWS):
    rng = np.random.default_rng(draw)
    rows = np.concatenate(
      [
        rng.permutation(np.flatnonzero(train.label == c))[:PER_CLASS]
        for c in range(len(DOWNSTREAM))
      ]
    )
    few = Features(train.feature[rows], train.label[rows])
    found.append(probe.evaluate(few, test)["probe"])
  return float(np.mean(found))


def linear_masks(student: Result) -> float:
  """Mean IoU of a linear classifier of pixels on the frozen stages.

  Ridge regression of the classes' indicators, every class with the same
  weight, in closed form; features of all stages are brought to the size of the
  image and standardised.
  """
  model = student.student

  @jax.jit
  def maps(image: Array) -> Array:
    taps: Taps = model.apply(student.variables, as_unit(image), train=False)
    shape = (image.shape[0], SIZE, SIZE)
    return jnp.concatenate(
      [
        jax.image.resize(taps[s], (*shape, taps[s].shape[-1]), "linear")
        for s in STAGES[:-1]
      ],
      -1,
    )

  sides = [_pixels(maps, split, n) for split, n in MASKS.items()]
  (x, label), (tested, truth) = sides
  mean, spread = x.mean(0), x.std(0) + 1e-6
  weights = _ridge((x - mean) / spread, label)
  said = np.argmax(_with_one((tested - mean) / spread) @ weights, -1)
  matrix = confusion.of(said, truth, weights.shape[1])
  return float(confusion.segmentation(matrix)["miou"])


def _pixels(
  maps: Callable[[Array], Array], split: str, count: int
) -> tuple[Float[np.ndarray, "p d"], Int[np.ndarray, " p"]]:
  """(features, classes) of the pixels of so many scenes."""
  records = _records(split, count, _SEEDS["masks"])
  features = _in_parts(maps, records.image)
  return features.reshape(-1, features.shape[-1]), records.mask.reshape(-1)


def _in_parts(
  apply: Callable[[Array], Array], image: np.ndarray
) -> Float[np.ndarray, "n ..."]:
  parts = np.split(image, range(_BATCH, len(image), _BATCH))
  return np.concatenate([np.asarray(apply(jnp.asarray(x))) for x in parts])


@dataclasses.dataclass(frozen=True)
class Records:
  """Scenes with one digit each.

  Attributes:
    image: (n, h, w, 3) uint8.
    label: (n,).
    mask: (n, h, w), 0 is the background.
  """

  image: np.ndarray
  label: np.ndarray
  mask: np.ndarray


@functools.cache
def _records(split: str, count: int, seed: int) -> Records:
  fields = scenes(split, DOWNSTREAM, length=count, seed=seed).to_dict()
  source = images.source(fields)
  found: list[Any] = [source[i] for i in range(count)]
  columns = ([r[k] for r in found] for k in ("image", "label", "mask"))
  return Records(*map(np.array, columns))


def _ridge(
  x: Float[np.ndarray, "p d"], label: np.ndarray
) -> Float[np.ndarray, "e c"]:
  classes = int(label.max()) + 1
  counts = np.bincount(label, minlength=classes)
  share = (1 / np.maximum(counts, 1))[label][:, None] * len(label) / classes
  rows = _with_one(np.float64(x))
  gram = rows.T @ (share * rows) / len(rows)
  right = rows.T @ (share * np.eye(classes)[label]) / len(rows)
  scale = np.trace(gram) / len(gram)
  return np.linalg.solve(gram + _RIDGE * scale * np.eye(len(gram)), right)


def _with_one(x: np.ndarray) -> np.ndarray:
  return np.concatenate([x, np.ones((len(x), 1))], 1)
