"""What a student is worth on digits that pre-training had no labels of."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from benchmarks import _digits
from benchmarks._finetune import Finetune, finetune
from configs import common_scenes
from configs.common_scenes import DOWNSTREAM, SIZE, scenes
from kd_jax.build import images
from kd_jax.data import pipeline
from kd_jax.interfaces import DataSource
from kd_jax.tasks.pretrain import Result
from kd_jax.train.views import as_unit
from kd_jax.transfer import confusion
from kd_jax.types import STAGES, Array, Taps

DRAWS = 3  # of the labelled images
STEPS = 60  # of fine-tuning
LABELS = 25
MASKS = {"train": 100, "test": 300}
_RIDGE = 1e-3  # of the mean variance of the features
_LAST = 6  # of those seeds that no other images have


@dataclasses.dataclass(frozen=True)
class Judge:
  """Measures students of one set of images.

  Attributes:
    transfer: fine-tuning on few labels.
    draws: how often, with other labelled images.
    masks: whether the images have masks.
  """

  transfer: Finetune
  draws: int
  masks: bool

  def __call__(self, student: Result) -> dict[str, float]:
    """Figures in [0, 1]."""
    tuned = [
      self.transfer.run(student.variables, draw) for draw in range(self.draws)
    ]
    found = {
      "kNN": float(student.metrics["eval/knn"]),
      f"{LABELS} labels": float(np.mean(tuned)),
    }
    return found | ({"masks": linear_masks(student)} if self.masks else {})


def judge(data: str, *, small: bool) -> Judge:
  """That of 'digits' or 'scenes'."""
  draws, steps = (1, 4) if small else (DRAWS, STEPS)
  plan = _digits.finetune(steps)
  if data == "digits":
    return Judge(finetune(plan), draws, False)
  plan.student.overrides.update(common_scenes.STUDENT)
  plan.preprocess = common_scenes.views()
  plan.test = scenes("test", DOWNSTREAM, length=1000, seed=4)
  plan.train = scenes("train", DOWNSTREAM, length=LABELS, seed=5)
  plan.eval_batch_size = 250
  views = images.preprocess(plan.preprocess.to_dict())

  def train(seed: int) -> Any:
    return pipeline.train_batches(
      _labelled(plan, seed), views, batch_size=plan.batch_size, seed=seed
    )

  made = dataclasses.replace(finetune(plan), train=train)
  return Judge(made, draws, True)


def _labelled(plan: ConfigDict, seed: int) -> DataSource:
  return images.source({**plan.train.to_dict(), "seed": 100 + seed})


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
) -> tuple[Float[np.ndarray, "p d"], np.ndarray]:
  """(features, classes) of the pixels of so many scenes."""
  image, mask = _scenes(split, count)
  parts = np.split(image, range(50, count, 50))
  features = np.concatenate([np.asarray(maps(jnp.asarray(p))) for p in parts])
  return features.reshape(-1, features.shape[-1]), mask.reshape(-1)


@functools.cache
def _scenes(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
  fields = scenes(split, DOWNSTREAM, length=count, seed=_LAST).to_dict()
  source = images.source(fields)
  records = [source[i] for i in range(count)]
  masks = [record.get("mask") for record in records]
  return np.stack([r["image"] for r in records]), np.stack(masks)


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
