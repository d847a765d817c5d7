"""What a frozen student is worth on labelled images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kd_jax import resolve
from kd_jax.door import arguments, embed
from kd_jax.door.finished import labelled, seen, worth
from kd_jax.evals import knn, probe
from kd_jax.evals.features import Features
from kd_jax.report.run import summary

PROTOCOLS = {"knn": knn.evaluate, "probe": probe.evaluate}
DRAWS = 5
"""Of few images per class, since figures differ from draw to draw."""


@dataclasses.dataclass(frozen=True)
class Wishes:
  """What a person asks for; see `evaluate`."""

  images: str
  model: str
  protocols: tuple[str, ...]
  val: str
  per_class: int
  teacher: bool
  weights: str
  batch_size: int
  seed: int

  def __post_init__(self) -> None:
    arguments.count("batch_size", self.batch_size)
    if self.per_class < 0:
      raise ValueError(f"per_class is {self.per_class}; it must be at least 0")
    unknown = [each for each in self.protocols if each not in PROTOCOLS]
    if unknown or not self.protocols:
      raise ValueError(
        f"protocol is {(unknown or ['empty'])[0]!r}; there are "
        f"{', '.join(PROTOCOLS)}"
      )


def evaluate(  # noqa: PLR0913
  images: str | os.PathLike[str],
  model: str | os.PathLike[str],
  out: str | os.PathLike[str] = "",
  *,
  protocols: Sequence[str] = ("knn", "probe"),
  val: str | os.PathLike[str] = "",
  per_class: int = 0,
  teacher: bool = False,
  weights: str | os.PathLike[str] = "",
  batch_size: int = 32,
  seed: int = 0,
) -> worth.Worth:
  """How well classes can be told by a network's features, without training it.

  An untrained network of the same architecture is judged as well, so that the
  figures mean something. Features are computed once; then come weighted nearest
  neighbours and a logistic regression, see `kd_jax.evals`.

  Args:
    images: a folder with a folder of images per class.
    model: the folder of a run, or what `embed` takes.
    out: a folder for results.json and report.html; '': evaluate/ in the run,
      and of a model that is no run none.
    protocols: of `PROTOCOLS`.
    val: a folder for test, with the same classes; '': a fifth of every class
      of `images`, drawn at random.
    per_class: images of each class to learn from, in `DRAWS` draws; 0: all.
    teacher: whether the run's teacher is judged as well, on the same views.
    weights: of a name; as `teacher_weights` of `distill`.
    batch_size: images at a time.
    seed: of the split, the draws and the untrained network.

  Raises:
    ValueError: images that are not sorted or too few, no such model, or a
      folder that cannot be written.
  """
  fields = {
    "images": arguments.text("images", images),
    "model": arguments.text("model", model),
    "protocols": protocols,
    "val": arguments.text("val", val),
    "per_class": arguments.plain(per_class),
    "teacher": teacher,
    "weights": arguments.text("weights", weights),
    "batch_size": arguments.plain(batch_size),
    "seed": arguments.seed(seed),
  }
  wishes = resolve.construct(Wishes, fields, "evaluate")
  target = _target(arguments.text("out", out), wishes.model)
  found = _judged(wishes)
  if target is not None:
    worth.write(found, target)
  return found


def _target(out: str, model: str) -> Path | None:
  """Where results go; None for nowhere.

  Raises:
    ValueError: it cannot be written.
  """
  run = Path(model).expanduser()
  if not out and not embed.is_run(model):
    return None
  return arguments.folder("out", out or str(run / "evaluate"))


def _judged(wishes: Wishes) -> worth.Worth:
  """Builds everything, then looks at images."""
  split = labelled.split(
    wishes.images, wishes.val, wishes.per_class, wishes.seed
  )
  network, variables, view = embed.load(wishes.model, wishes.weights)
  size = view.image_size
  networks = {"student": seen.by(network, variables)}
  if wishes.teacher:
    networks["teacher"] = seen.teacher(wishes.model)
  fresh = seen.untrained(network, size, wishes.seed)
  networks["untrained student"] = seen.by(network, fresh)

  def features(name: str) -> tuple[Features, Features]:
    summary.say(f"{name}: features of {sum(map(len, split)):,} images")
    train, test = (
      seen.extract(networks[name], part, view, wishes.batch_size)
      for part in split
    )
    return train, test

  *others, last = networks
  figures = {name: _figures(wishes, *features(name)) for name in others}
  train, test = features(last)
  figures[last] = _figures(wishes, train, test)
  return worth.Worth(
    model=wishes.model,
    images=wishes.images,
    val=wishes.val,
    classes=tuple(split.train.class_names),
    train_images=len(train.label),
    test_images=len(test.label),
    left_out=sum(map(len, split)) - len(train.label) - len(test.label),
    per_class=wishes.per_class,
    seed=wishes.seed,
    image_size=size,
    figures=figures,
    guess=_guess(train, test),
  )


def _figures(
  wishes: Wishes, train: Features, test: Features
) -> Mapping[str, Sequence[float]]:
  """{protocol: a value per draw}."""
  found: dict[str, list[float]] = {name: [] for name in wishes.protocols}
  for draw in range(DRAWS if wishes.per_class else 1):
    rows = labelled.drawn(train.label, wishes.per_class, wishes.seed + draw)
    some = Features(train.feature[rows], train.label[rows])
    for name, values in found.items():
      values.append(PROTOCOLS[name](some, test)[name])
  return found


def _guess(train: Features, test: Features) -> float:
  """Share of test images in the class that most training images have."""
  return float(np.mean(test.label == np.bincount(train.label).argmax()))
