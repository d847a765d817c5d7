"""What is decided about a run, and the config that says it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from kd_jax.convert import licences
from kd_jax.door import fields
from kd_jax.door.machine import Machine
from kd_jax.door.pair import BATCH, Settings
from kd_jax.door.photos import Photos
from kd_jax.door.teachers import Chosen

_MOST = 128_000  # images, KDEP's tenth of ImageNet: more need fewer passes
_REPLACED = ("method", "losses")  # sections that a method writes as a whole
_SMALL = 96  # px; of smaller images a crop of 8 % shows nothing


@dataclasses.dataclass(frozen=True)
class Choice:
  """Everything that a run depends on.

  Attributes:
    photos: the images.
    machine: where it runs.
    teacher: who teaches.
    student: a name of `kd_jax.models`.
    method: a file of `kd_jax.door.recipes`.
    settings: what it wants.
    overrides: fields of the student.
    batch_norm: whether the student has BatchNorm.
    image_size: side, pixels.
    batch_size: global.
    accum_steps: microbatches per update.
    steps: updates.
    seed: of everything random.
    directions: of the teacher's feature that the student learns.
  """

  photos: Photos
  machine: Machine
  teacher: Chosen
  student: str
  method: str
  settings: Settings
  overrides: Mapping[str, int]
  batch_norm: bool
  image_size: int
  batch_size: int
  accum_steps: int
  steps: int
  seed: int
  directions: int = 0

  @property
  def fit_views(self) -> int:
    """Views that the teacher's directions are fitted on: some per direction."""
    return self.directions * (2 if self.machine.cpu else 4)

  @property
  def fit_examples(self) -> int:
    """Images for them; 0 takes all. On a CPU no more than that."""
    many = self.photos.count > self.fit_views
    return self.fit_views if self.machine.cpu and many else 0

  @property
  def fit_passes(self) -> int:
    """Passes over the images: of few, each gives several views."""
    return max(-(-self.fit_views // self.photos.count), 1)

  @property
  def budget(self) -> int:
    """Steps of a full run: the method's passes over `_MOST` images at most."""
    views = self.settings.passes * min(self.photos.count, _MOST)
    return max(views // self.batch_size, 100)

  @property
  def small_images(self) -> bool:
    """Whether crops must be large to show anything."""
    return self.photos.side < _SMALL

  @property
  def lr(self) -> float:
    """The first learning rate, proportional to the batch."""
    usual = self.settings.rate if self.batch_norm else 1e-3
    return float(f"{usual * self.batch_size / BATCH:.3g}")

  def config(self) -> ConfigDict:
    """Of the task 'pretrain', locked."""
    config = fields.kdep(self.steps, self.batch_size, self.lr)
    config.seed, config.accum_steps = self.seed, self.accum_steps
    config.dtype = "float32" if self.machine.cpu else "bfloat16"
    config.student.name = self.student
    config.student.overrides.update(self.overrides)
    teacher = self.teacher
    config.teacher.update({"source": teacher.source, "name": teacher.name})
    config.teacher.weights = teacher.weights
    config.data = ConfigDict(
      {"name": "folder", "dir": self.photos.dir, "labels": False}
    )
    config.data.skip_corrupt = True
    config.preprocess.image_size = self.image_size
    config.preprocess.dct_scaling = True
    if self.small_images:
      config.preprocess.scale = (0.25, 1.0)
    if self.photos.grey:
      config.preprocess.update({"color_jitter": (0.0,) * 3, "lighting": 0.0})
    if self.settings.spectrum:
      config.fit.update(
        {"examples": self.fit_examples, "passes": self.fit_passes}
      )
    sections = [*self.settings.sections.items()]
    if not self.batch_norm:
      sections.append(("optim", self._adamw()))
    for name, section in sections:
      if name in _REPLACED:
        config[name] = ConfigDict()
      getattr(config, name).update(section)
    limit = 64 if self.machine.cpu else 2048
    config.eval.limit = min(self.photos.count, limit)
    config.eval.batch_size = self.batch_size // self.accum_steps
    config.log_every = min(max(self.steps // 20, 1), 50)
    config.checkpoint.every = min(max(self.steps // 10, 25), 1000)
    config.lock()
    return config

  def _adamw(self) -> dict[str, str | float | int | bool]:
    """For networks without BatchNorm, which SGD hardly moves."""
    return {
      "name": "adamw",
      "weight_decay": 0.05,
      "decay_all": False,
      "schedule": "cosine",
      "warmup_frac": 0.05,
    }

  def lines(self) -> list[str]:
    """What was chosen, and why; one line each."""
    share = (0.25 if self.small_images else 0.08) * 100
    colours = "no colours" if self.photos.grey else "colours a little changed"
    optim = "SGD, for BatchNorm" if self.batch_norm else "AdamW, no BatchNorm"
    notice = licences.notice(self.teacher.weights)
    return [
      f"images: {self.photos} ({self.photos.dir})",
      f"machine: {self.machine}",
      f"teacher: {self.teacher.name} ({self.teacher.why})",
      *([notice] if notice else []),
      f"method: {self.method}, student: {self.student}",
      f"views: {self.image_size} px, crops of {share:g} % or more, {colours}",
      f"optimizer: {optim}; rate {self.lr:g} for this batch",
    ]
