"""Defaults from the images, the machine and the teacher."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from kd_jax import models, resolve
from kd_jax.build import experiment as experiment_lib
from kd_jax.door import machine as machine_lib
from kd_jax.door import names, photos, teachers
from kd_jax.door.choice import Choice
from kd_jax.door.pair import BATCH, Pair, Settings, taps
from kd_jax.models.backbone import Backbone, variable_shapes
from kd_jax.report.run import memory, summary
from kd_jax.train.experiment import Experiment

RECIPES = "door.recipes"  # a file for each method, which defines this:
SETTINGS = "settings"

_CPU_BATCH = 16
_CPU_SIZE = 112  # px; a quarter of the work of 224
_CPU_SECONDS = 45.0  # that a first try should compute for, with the fit
_FEWEST = 20  # steps
_HOPELESS = 2  # times the memory of a machine, by an estimate


@dataclasses.dataclass(frozen=True)
class Wishes:
  """What a person asks for; '' and 0 leave it to this file.

  Attributes:
    images: the folder.
    teacher: see `teachers.choose`.
    student: a name of `kd_jax.models`.
    method: a file of `kd_jax.door.recipes`.
    steps: updates.
    image_size: side, pixels.
    batch_size: global.
    teacher_weights: see `teachers.choose`.
    seed: of everything random.
  """

  images: str
  teacher: str
  student: str = "resnet18"
  method: str = "kdep"
  steps: int = 0
  image_size: int = 0
  batch_size: int = 0
  teacher_weights: str = ""
  seed: int = 0


@dataclasses.dataclass(frozen=True)
class Plan:
  """A run that fits.

  Attributes:
    choice: all that was decided.
    lines: the same for people, with the reasons.
  """

  choice: Choice
  lines: tuple[str, ...]


def plan(wishes: Wishes) -> Plan:
  """Decides what is left open, and builds it once to see that it fits.

  Raises:
    ValueError: something does not exist, cannot be read or does not fit.
  """
  known = resolve.names(RECIPES, SETTINGS)
  if wishes.method not in known:
    raise ValueError(
      f"method is {wishes.method!r}; this command has {known}, and configs "
      "have the others: docs/where.md"
    )
  student = _network(wishes.student)
  found, machine = photos.look(wishes.images), machine_lib.look()
  teacher = teachers.choose(wishes.teacher, wishes.teacher_weights)
  network = _of(teacher)
  size = wishes.image_size or _size(found, machine, student, network)
  choice = Choice(
    photos=found,
    machine=machine,
    teacher=teacher,
    student=wishes.student,
    method=wishes.method,
    settings=_settings(wishes, (student, network), size, found.count),
    overrides=_changes(student, size),
    batch_norm="batch_stats" in variable_shapes(student),
    image_size=size,
    batch_size=_batch(wishes.batch_size, found, machine),
    accum_steps=1,
    steps=wishes.steps or 1000,
    seed=wishes.seed,
  )
  with tempfile.TemporaryDirectory() as nowhere:
    experiment = experiment_lib.experiment(choice.config(), Path(nowhere))
  widths = [specs["feature"].shape[-1] for specs in experiment.specs]
  choice = dataclasses.replace(choice, directions=min(widths))
  choice, batch = _accumulated(choice, experiment)
  choice, steps = _steps(choice, experiment, wishes.steps)
  return Plan(choice, (*choice.lines(), batch, steps))


def _settings(
  wishes: Wishes,
  networks: tuple[Backbone, Backbone | None],
  size: int,
  images: int,
) -> Settings:
  """What the method makes of student and teacher.

  Raises:
    ValueError: it cannot do with them, or they take no such images.
  """
  student, teacher = networks
  student = _fitted(student, size)
  for name, network in ((wishes.student, student), (wishes.teacher, teacher)):
    if network and not _takes(network, size):
      own = network.input_size[-1]
      raise ValueError(
        f"image_size is {size}; {name} does not take such images, but {own} px"
      )
  pair = Pair(
    name=wishes.student,
    student=taps(student, size),
    teacher=taps(teacher, size) if teacher else None,
    images=images,
  )
  return resolve.symbol(RECIPES, wishes.method, SETTINGS)(pair)


def _network(name: str) -> Backbone:
  """The student without a classifier.

  Raises:
    ValueError: there is no such network.
  """
  if not models.exists(name):
    near = names.near(name, models.list_models())
    raise ValueError(
      f"there is no student {name!r}; {near}. 'kd-jax models' lists all"
    )
  return models.create_model(name, num_classes=0)


def _of(teacher: teachers.Chosen) -> Backbone | None:
  """The teacher's architecture; None where another library runs it."""
  if teacher.source == "timm":
    return None
  place = Path(teacher.weights)
  folder = place if place.is_dir() else place.parent
  local = teacher.weights and place.exists()
  fields = teachers.about(folder).get("model_args") if local else {}
  return models.create_model(teacher.name, **(fields or {}))


def _size(
  found: photos.Photos,
  machine: machine_lib.Machine,
  student: Backbone,
  teacher: Backbone | None,
) -> int:
  """Of the images, at most 224 (112 on a CPU), or what the networks demand."""
  most = _CPU_SIZE if machine.cpu else 224
  # Multiples of 16; below 96 the last maps are of 2 x 2 pixels.
  wanted = min(max(found.side // 16 * 16, 96), most)
  own = [each.input_size[-1] for each in (student, teacher) if each]
  for size in (wanted, 224, *own):
    taught = teacher is None or _takes(teacher, size)
    if taught and _takes(_fitted(student, size), size):
      return size
  raise ValueError(
    f"the student takes images of {own[0]} px and the teacher of {own[-1]}; "
    "choose another of them, such as a convolutional student"
  )


def _fitted(student: Backbone, size: int) -> Backbone:
  """The student, made for images of this size where it has that option."""
  if not _has_size(student):
    return student
  made = student.clone(img_size=size)
  return made if _takes(made, size) else student


def _has_size(network: Backbone) -> bool:
  return any(f.name == "img_size" for f in dataclasses.fields(network))


def _changes(student: Backbone, size: int) -> dict[str, int]:
  """Fields in which the fitted student differs from the usual one."""
  made = _fitted(student, size)
  return {} if made == student else {"img_size": size}


def _takes(network: Backbone, size: int) -> bool:
  try:  # Networks refuse sizes with ValueError.
    taps(network, size)
  except ValueError:
    return False
  return True


def _batch(
  wanted: int, found: photos.Photos, machine: machine_lib.Machine
) -> int:
  """A power of two, so that a pass over the images has some steps.

  Raises:
    ValueError: `wanted` does not fit the images or the devices.
  """
  if wanted > found.count:
    raise ValueError(
      f"batch_size is {wanted}, and there are {found.count} images; it may be "
      "that at most"
    )
  most = _CPU_BATCH if machine.cpu else BATCH
  fair = 2 ** int(np.log2(min(most, max(found.count // 4, 4))))
  return wanted or max(fair // machine.devices, 1) * machine.devices


def _accumulated(choice: Choice, experiment: Experiment) -> tuple[Choice, str]:
  """Microbatches that fit into the memory, and the line that says so.

  What the backward pass keeps is proportional to the microbatch.

  Raises:
    ValueError: it needs far more than there is.
  """
  needs = memory.estimate(experiment)
  memory_gb = choice.machine.memory / 1e9
  limit = memory_gb * machine_lib.SPARE
  maps = needs.pop("activations")
  fixed, rows = sum(needs.values()), choice.batch_size // choice.machine.devices
  accum = 1
  while limit and fixed + maps / accum > limit and rows % (2 * accum) == 0:
    accum *= 2
  needed = fixed + maps / accum
  line = f"batch: {choice.batch_size}"
  if accum > 1:
    line += f" in {accum} microbatches"
  line += f"; by estimate it needs {needed:.2g} GB"
  if limit:
    line += f" of {memory_gb:.3g}"
  if limit and needed > _HOPELESS * memory_gb:
    raise ValueError(
      f"image_size is {choice.image_size} and batch_size {choice.batch_size}: "
      f"by estimate this needs {needed:,.0f} GB, and there are "
      f"{memory_gb:.3g}; lower them"
    )
  if limit and needed > limit:
    line += ", which may be too much: lower image_size or batch_size"
  return dataclasses.replace(choice, accum_steps=accum), line


def _steps(
  choice: Choice, experiment: Experiment, wanted: int
) -> tuple[Choice, str]:
  """How long to train, and the line that says why."""
  budget = choice.budget
  steps, why = wanted, f"as asked for; a full run takes {budget:,}"
  if not wanted:
    steps, why = budget, "a full run for so many images"
  if not wanted and choice.machine.cpu:
    once, each = _gflops(choice, experiment)
    left = _CPU_SECONDS * choice.machine.gflops - once
    affordable = max(int(left / each), _FEWEST)
    if affordable < budget:
      steps = affordable
      why = f"a first try on a CPU; a full run takes steps={budget}"
  passes = steps * choice.batch_size / choice.photos.count
  line = f"steps: {steps:,}, {passes:.3g} passes over the images ({why})"
  return dataclasses.replace(choice, steps=steps), line


def _gflops(choice: Choice, experiment: Experiment) -> tuple[float, float]:
  """(before the first step, of a step), forward and, for the student, back."""
  network = experiment.teaching.network
  # One that runs in PyTorch is not known: as a ResNet-50 at 112 px.
  teacher = summary.gflops(network, choice.image_size) if network else 2.0
  student = summary.gflops(experiment.student, choice.image_size)
  fitted = choice.fit_views if choice.settings.spectrum else 0
  return fitted * teacher, (teacher + 3 * student) * choice.batch_size
