"""What a method, a teacher source and a data source offer, with defaults.

A new one is a file in `methods/`, `teachers/` or `data/sources/` with a frozen
dataclass (`Method`, `Source`) that inherits from its base here; its fields are
what a config can set. Each base says what has to be written, which raises
NotImplementedError here, and what may be, which has a default. docs/extend.md
has an example of each.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Int64

from kd_jax.types import (
  Artifact,
  Batch,
  Marks,
  Network,
  Networks,
  Phase,
  Record,
  Specs,
  Taps,
  Teacher,
  Variables,
)

T = TypeVar("T")

Numbers: TypeAlias = Sequence[int] | Int64[np.ndarray, " n"]
"""Whole numbers that are only read, `np.asarray` of which is an array."""

if TYPE_CHECKING:

  def computed(function: Callable[[Any], T]) -> T:
    """Type checkers see an attribute: what a base declares as one."""
    ...

  def computed_once(function: Callable[[Any], T]) -> T:
    """As `computed`."""
    ...

else:
  computed = property
  computed_once = functools.cached_property


class Method:
  """What the student learns from the teacher: loss terms and phases.

  To be written: `phases`. A field `terms` holds the names of the loss terms
  that have a weight in `config.losses`; only they are computed.
  """

  terms: tuple[str, ...]

  needs_networks: ClassVar[bool] = False
  """Whether the phases depend on the networks: only what `bind` returns has
  them."""

  @property
  def artifact_tap(self) -> str | None:
    """Teacher tap whose mean and principal directions the losses read.

    They find them as `variables['artifact']`, see `align.basis.Basis`.
    """
    return None

  @property
  def artifact_taps(self) -> tuple[str, ...]:
    """Several such taps, read as `variables['artifact'][tap]`."""
    return ()

  def artifact_widths(self, student: Specs) -> Mapping[str, int]:
    """{tap: directions} of `artifact_taps` of which not all are read."""
    del student
    return {}

  def refined(self, tap: str, artifact: Artifact, teacher: Specs) -> Artifact:
    """What the losses read of `artifact_taps` instead of their statistics.

    Computed once, on the host.

    Args:
      tap: one of `artifact_taps`.
      artifact: its mean and all its directions.
      teacher: shapes of the teacher's taps.

    Returns:
      Arrays of the same names and shapes.
    """
    del tap, teacher
    return artifact

  @property
  def reads_labels(self) -> bool:
    """Whether training needs labelled images."""
    return "ce" in self.terms

  def bind(self, networks: Networks) -> Method:
    """The method that runs between these networks.

    Raises:
      ValueError: it cannot run between them.
    """
    del networks
    return self

  def init(self, key: Array, student: Specs, teacher: Specs) -> Variables:
    """Variables of the method itself: {'params': ..., other stats: ...}.

    Args:
      key: random key.
      student: shapes of the student's taps.
      teacher: shapes of the teacher's taps.

    Raises:
      ValueError: the taps do not fit together.
    """
    del key, student, teacher
    return {}

  @property
  def image_terms(self) -> tuple[str, ...]:
    """Terms whose value for every image `image_losses` knows."""
    return ()

  def image_losses(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> Mapping[str, Array]:
    """{term: (n,)} of `image_terms`; their means are those of the phase."""
    raise NotImplementedError

  def phases(self) -> tuple[Phase, ...]:
    """The phases, in order; their `steps_frac` sum to 1."""
    raise NotImplementedError

  def metrics(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> Mapping[str, tuple[Array, Array]]:
    """Evaluation figures {name: (numerator (n,), denominator (n,))}."""
    del variables, taps, teacher, batch
    return {}


@dataclasses.dataclass(frozen=True)
class EvaluationView:
  """How a teacher's images were prepared for its evaluation.

  Attributes:
    interpolation: resizing.
    crop_pct: share of the shorter side that the central crop keeps.
    crop_mode: see `data.preprocess.Preprocess`.
  """

  interpolation: str = "bicubic"
  crop_pct: float = 0.875
  crop_mode: str = "center"


class TeacherSource:
  """Yields teacher taps, from a network that runs or from storage.

  To be written: `__call__`, and beside the class
  `load(name, weights, overrides) -> (source, variables)`, which gets the fields
  of `config.teacher`; the variables are what `__call__` finds as
  `frozen['teacher']`.
  """

  can_resume: bool = False
  """Whether `Teacher.resume` runs the network from one of its stages."""

  @property
  def can_mix(self) -> bool:
    """Whether taps follow mixup and CutMix; a network sees mixed images."""
    return True

  def __call__(self, frozen: Mapping[str, Any], batch: Batch) -> Teacher:
    """Taps of `batch`; `frozen` is {'teacher': ..., 'artifact': ...}."""
    raise NotImplementedError

  @property
  def network(self) -> Network | None:
    """The Flax network that runs, if one does."""
    return None

  @property
  def stored(self) -> object | None:
    """The `data.bank.Bank` that the taps come from, if they are stored."""
    return None

  @property
  def fingerprint(self) -> str:
    """Identifies what the teacher says; '' leaves it to its weights."""
    return ""

  @property
  def evaluation_view(self) -> EvaluationView:
    """Followed where the config leaves `preprocess` open."""
    return EvaluationView()

  def stored_specs(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What `Batch.teacher` holds for so many rows."""
    del rows
    return {}

  def view_specs(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What `Batch.views` holds for so many rows."""
    del rows
    return {}

  def resumes(self, stage: str) -> bool:
    """Whether `Teacher.resume` takes this stage."""
    del stage
    return self.can_resume


class DataSource:
  """Random access to records.

  To be written: `num_classes` (0 without labels), `fingerprint` (16 hex
  digits of the images in order), `__len__` and `__getitem__`, whose record is
  a `types.Record`: {'image': uint8 (h, w, 3) array or encoded bytes, 'label':
  int (-1 if unknown), 'id': int}. A source with masks adds 'mask': int16
  (h, w), the class of every pixel of the image, -1 where it is ignored. One
  with objects adds what `objects` says.

  What a source finds out itself it marks with `computed` or `computed_once`.
  """

  num_classes: int
  fingerprint: str

  skip_corrupt: bool = False
  """Whether another record takes the place of one that cannot be decoded."""

  exif_rotation: bool = False
  """Whether encoded photographs are turned upright as their EXIF tag says."""

  class_names: Sequence[str] = ()
  """Names of the labels, if they have any."""

  mask_names: Sequence[str] = ()
  """Names of the classes in masks; () where records have none."""

  box_names: Sequence[str] = ()
  """Names of the classes of objects; () where records have none."""

  image_ids: Sequence[int | str] | None = None
  """What files of detections call the images; None counts from 0."""

  category_ids: Sequence[int | str] | None = None
  """The same of the classes of objects."""

  drawn: bool = False
  """Whether the records were drawn from more, so that a run lists them."""

  shuffle_blocks: int = 0
  """How many of `blocks` are mixed at a time; 0 mixes all records."""

  def blocks(self) -> Numbers:
    """Numbers of records that lie together and are read at once, in order."""
    return [1] * len(self)

  def __len__(self) -> int:
    raise NotImplementedError

  def __getitem__(self, index: int) -> Record:
    raise NotImplementedError

  def objects(self, index: int) -> Marks:
    """The objects of a record, without its image."""
    raise NotImplementedError

  def sizes(self) -> Int64[np.ndarray, "n 2"] | None:
    """Height and width of every image; None if they are all of one size."""
    return None

  def object_counts(self) -> Int64[np.ndarray, " n"] | None:
    """Objects to learn of every image; None if only reading it tells."""
    return None

  def describe(self, index: int) -> str:
    """What to call a record in an error message."""
    return f"record {index}"

  def ids(self) -> Iterator[str]:
    """A name for every record, in order."""
    return map(str, range(len(self)))

  def all_labels(self) -> Numbers:
    """The label of every record, in order; -1 where it is unknown.

    Reads every record, unless a source knows better.
    """
    return [int(self[index]["label"]) for index in range(len(self))]


class MetricsWriter(Protocol):
  """Where figures go, such as `report.metrics.Writer`."""

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes the figures of a step."""
    ...


class ProgressLine(Protocol):
  """What tells a person, such as `report.run.progress.Progress`."""

  def update(
    self, step: int, losses: Mapping[str, float], rate: float, *, phase: str
  ) -> None:
    """Shows a step, with its loss terms and images per second."""
    ...

  def write(self, text: str) -> None:
    """Prints a line of its own."""
    ...
