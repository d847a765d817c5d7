"""The pytrees that every other file speaks; `interfaces` has what is called.

Data flows config -> data -> Batch -> (student Taps, Teacher) -> losses ->
TrainState. Nothing here imports another file of the package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import (
  TYPE_CHECKING,
  Any,
  Literal,
  NotRequired,
  TypeAlias,
  TypedDict,
  TypeGuard,
  TypeVar,
  overload,
)

import jax
import numpy as np
from flax import linen as nn
from flax import struct
from jaxtyping import (
  Array,
  ArrayLike,
  Bool,
  Float,
  Float32,
  Int16,
  Int32,
  PyTree,
  UInt8,
)

if TYPE_CHECKING:
  from flax.core.scope import CollectionFilter

  Rngs: TypeAlias = Array | Mapping[str, Array] | None
  Intermediates: TypeAlias = bool | Callable[[nn.Module, str], bool]

Taps = Mapping[str, Array]
"""Named outputs of a network: 'stem', 'stage1'..'stage4' (maps, NHWC),
'feature' (n d, pooled without the last ReLU), 'pooled' (n d, what the
classifier reads) and 'logits' (n classes). Networks that end with a ReLU also
have 'feature_map' (NHWC), whose mean is 'feature'."""

Specs = Mapping[str, jax.ShapeDtypeStruct]
"""Shapes and dtypes of taps, known before anything runs."""

Variables = Mapping[str, Any]
"""What a loss may read: 'params', 'artifact', the method's statistics, and
'key', a random key of the microbatch while training."""

Stats = Mapping[str, Any]
"""Non-trained method state (its BatchNorm statistics, for instance)."""


class Network(nn.Module):
  """What runs stage by stage and yields taps: a backbone, or one with more.

  A subclass that is an argument of cached functions repeats `__hash__`; Flax
  gives every module one, which type checkers cannot see.
  """

  if TYPE_CHECKING:

    def __hash__(self) -> int:
      """By the fields."""
      ...

    @overload
    def apply(
      self,
      variables: Mapping[str, Any],
      *args: Any,
      rngs: Rngs = None,
      method: None = None,
      mutable: Literal[False] = False,
      capture_intermediates: Literal[False] = False,
      **kwargs: Any,
    ) -> Taps: ...

    @overload
    def apply(
      self,
      variables: Mapping[str, Any],
      *args: Any,
      rngs: Rngs = None,
      method: None = None,
      mutable: Sequence[str],
      capture_intermediates: Intermediates = False,
      **kwargs: Any,
    ) -> tuple[Taps, Mapping[str, Any]]: ...

    @overload
    def apply(
      self,
      variables: Mapping[str, Any],
      *args: Any,
      rngs: Rngs = None,
      method: Callable[..., Any] | str | None = None,
      mutable: CollectionFilter = False,
      capture_intermediates: Intermediates = False,
      **kwargs: Any,
    ) -> Any: ...

    def apply(self, *args: Any, **kwargs: Any) -> Any:
      """The taps; with `mutable` also what has changed."""
      ...


STAGES = ("stem", "stage1", "stage2", "stage3", "stage4", "head")
"""The order in which every model runs; `begin` and `end` name entries."""

HEAD = ("student/pool", "student/neck", "student/head")
"""Where the parameters of the student's stage 'head' are, if it has them."""

Artifact = Mapping[str, Any]
"""Statistics of a teacher tap ('mean', 'basis', ...), or {tap: those}."""


class Objects(struct.PyTreeNode):
  """What a detector has to find in the images of a batch.

  Attributes:
    boxes: (n, g, 4) float32, (x0, y0, x1, y1) in pixels of the canvas; g is
      the most objects that an image may have.
    classes: (n, g) int32; -1 marks padding, which comes last.
    masks: (n, g, m, m) uint8, 1 inside the object; m is 0 without masks.
    frames: (n, g, 4) float32, the part of the canvas that each mask covers.
    size: (n, 2) int32, height and width of each image on its canvas.
  """

  boxes: Any
  classes: Any
  masks: Any
  frames: Any
  size: Any


class Batch(struct.PyTreeNode):
  """One global batch.

  Attributes:
    image: (n, h, w, 3) RGB; uint8 on its way to the device, float in [0, 1]
      once inside the step. Models normalise.
    label: (n,) int32; -1 where there is none. For segmentation (n, h, w)
      int16, the class of every pixel; -1 where it is ignored. For detection
      `Objects`.
    mask: (n,) float32; 0 marks padding of the last evaluation batch.
    teacher: stored teacher taps, empty when the teacher runs online.
    geometry: (n, m, 7) int32 of the m views that the step has to cut out of
      every image, see `Preprocess.train`; None if `image` holds the views.
    target: (n, classes) label probabilities where the step mixes images.
    partner: (n,) int32, the row that each row was mixed with, if any was.
    share: scalar, the partner's share.
    views: {name: (n, h, w, 3)}, the same crops in other sizes, for teachers
      that see images otherwise than the student.
  """

  image: Any
  label: Any
  mask: Any
  teacher: Mapping[str, Any] = struct.field(default_factory=dict)
  geometry: Any = None
  target: Any = None
  partner: Any = None
  share: Any = None
  views: Mapping[str, Any] = struct.field(default_factory=dict)

  @property
  def classes(self) -> Any:
    """What cross-entropy compares with: probabilities if any, else labels."""
    return self.label if self.target is None else self.target


class TrainState(struct.PyTreeNode):
  """Everything that changes while training; donated to the step.

  Attributes:
    step: int32 scalar, number of finished updates.
    params: {'student': ..., 'method': ...}, float32; 'method' only if the
      method has parameters.
    stats: {'student': batch statistics, 'method': ...}.
    opt: optimizer state of the trainable parameters of the current phase.
    ema: moving average of `params`, or an empty dict when switched off.
    rng: raw key data; the key of a step is `fold_in(rng, step)`.
    best: {'value', 'params', 'stats'} of the best evaluation of a phase that
      hands on its best weights; {} in any other.
  """

  step: Array
  params: Any
  stats: Any
  opt: Any
  ema: Any
  rng: Array
  best: Any = struct.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Teacher:
  """What a teacher says about one batch.

  Attributes:
    taps: teacher taps, gradients stopped.
    resume: resume(begin, x, end="head") runs the frozen teacher from `begin` to
      `end` on x, which replaces the tap before `begin`, and returns the taps
      on the way; differentiable in x. None if only taps are stored.
  """

  taps: Taps
  resume: Callable[..., Taps] | None


@dataclasses.dataclass(frozen=True)
class Needs:
  """What a phase reads; checked before step 0.

  Attributes:
    student: names of the student's taps.
    teacher: names of the teacher's taps.
    resume: stages that the teacher runs from.
    truth: whether the student is given `Batch.label` as `truth`: the second
      stage of a detector looks at boxes that are chosen by it.
  """

  student: tuple[str, ...] = ()
  teacher: tuple[str, ...] = ()
  resume: tuple[str, ...] = ()
  truth: bool = False


LossFn = Callable[
  [Variables, Taps, Teacher, Batch],
  tuple[Mapping[str, Float[Array, ""]], Stats],
]
"""(variables, student taps, teacher, batch) -> ({term: loss}, new stats)."""


@dataclasses.dataclass(frozen=True)
class Hidden:
  """A second run of the student in a step, on images with hidden patches.

  Its taps are read as 'hidden/<tap>', and what was hidden as 'hidden/mask',
  (n, h, w) bool over the patches.

  Attributes:
    taps: of the student.
    patch: side of a patch, pixels.
    prob: share of the images in which anything is hidden.
    share: of the patches of such an image, at most.
  """

  taps: tuple[str, ...]
  patch: int
  prob: float
  share: float


@dataclasses.dataclass(frozen=True)
class Phase:
  """One stretch of training with fixed losses and trainable parameters.

  Attributes:
    name: shown to the user.
    losses: the unweighted loss terms.
    needs: taps that `losses` reads.
    trainable: path prefixes of the parameters that are updated.
    frozen: path prefixes taken out of `trainable` again.
    train_from: earlier stages of the student run in evaluation mode; with ''
      all of them do.
    end: last stage of the student that runs.
    steps_frac: share of the total number of steps.
    data: ((field, value), ...) changes to the data configuration.
    fresh_opt: start from a new optimizer state.
    optim: ((field, value), ...) changes to the optimizer's fields.
    judge: the metric of `Method.metrics` that chooses, at its lowest among the
      evaluations of the phase, the weights that the phase ends with; '' ends
      with the last ones.
    may_vanish: terms that are 0 for some batches, such as that of boxes where
      no image has any; for other terms that is an error.
    hidden: a second run of the student, on images with hidden patches.
  """

  name: str
  losses: LossFn
  needs: Needs
  trainable: tuple[str, ...] = ("student", "method")
  frozen: tuple[str, ...] = ()
  train_from: str = "stem"
  end: str = "head"
  steps_frac: float = 1.0
  data: tuple[tuple[str, Any], ...] = ()
  fresh_opt: bool = True
  optim: tuple[tuple[str, Any], ...] = ()
  judge: str = ""
  may_vanish: tuple[str, ...] = ()
  hidden: Hidden | None = None


@dataclasses.dataclass(frozen=True)
class Networks:
  """What `Method.bind` is told about the two networks.

  Attributes:
    student: specs of the student's taps.
    teacher: specs of the teacher's taps.
    flops: student tap -> floating point operations of one image's forward
      pass up to it; counted when called.
    groups: student tap -> the top-level groups of parameters that it depends
      on: 'stem', 'stage1', ..., 'neck', 'head'.
    same_family: both are networks of one file of `models`.
  """

  student: Specs
  teacher: Specs
  flops: Callable[[str], float]
  groups: Mapping[str, frozenset[str]]
  same_family: bool


class Record(TypedDict):
  """One item of a data source.

  Attributes:
    image: pixels, or a file's bytes.
    label: -1 if unknown.
    id: its number, from which its augmentation follows.
    mask: the class of every pixel, -1 where it is ignored; of a source with
      masks.
    whole: height and width of an image that was decoded smaller.
  """

  image: UInt8[np.ndarray, "h w 3"] | bytes
  label: int
  id: int
  mask: NotRequired[Int16[np.ndarray, "h w"]]
  whole: NotRequired[tuple[int, int]]


class Marks(TypedDict):
  """The k objects of one image, without the image.

  Attributes:
    size: height and width of the image.
    boxes: (x0, y0, x1, y1) in pixels.
    classes: of the objects.
    ignored: crowds and others that are neither learnt nor counted.
    area: pixels.
    difficult: learnt but not counted; of sources that know it.
    masks: of sources that have them.
  """

  size: tuple[int, int]
  boxes: Float32[np.ndarray, "k 4"]
  classes: Int32[np.ndarray, " k"]
  ignored: Bool[np.ndarray, " k"]
  area: Float32[np.ndarray, " k"]
  difficult: NotRequired[Bool[np.ndarray, " k"]]
  masks: NotRequired[Bool[np.ndarray, "k h w"]]


class MarkedRecord(Record):
  """One item of a data source with objects; see `Marks` for the fields."""

  boxes: Float32[np.ndarray, "k 4"]
  classes: Int32[np.ndarray, " k"]
  size: NotRequired[tuple[int, int]]
  ignored: NotRequired[Bool[np.ndarray, " k"]]
  area: NotRequired[Float32[np.ndarray, " k"]]
  difficult: NotRequired[Bool[np.ndarray, " k"]]
  masks: NotRequired[Bool[np.ndarray, "k h w"]]


def is_marked(record: Record) -> TypeGuard[MarkedRecord]:
  """Whether a record has objects."""
  return "boxes" in record


Params = Mapping[str, Any]
"""Parameters as nested dicts: {'student': ..., 'method': ...}."""

Frozen = Mapping[str, Any]
"""What a step only reads: {'teacher': its variables, 'artifact': ...}, and
'rate', a factor of the learning rate, where runs share one compiled step."""

Metrics = Mapping[str, Array]
"""Figures of one step by name, still on the device."""

ArrayTree: TypeAlias = PyTree[ArrayLike]
"""Arrays in containers nested in any way: dicts, tuples, a `TrainState`, an
optimizer state. Only for what takes every such tree; type checkers see Any."""

TreeT = TypeVar("TreeT")
"""An `ArrayTree` whose kind the result shares."""
