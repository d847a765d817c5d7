"""Distillation as DINOv3's small models had it, as far as it is published.

Siméoni et al., 2025 (arXiv:2508.10104, section 5): the objective of the first
training phase, with the large frozen model in the place of the moving average:

  image  scores of the image's token against prototypes; the teacher's are
         balanced over the batch (Sinkhorn-Knopp, 3 rounds), and the loss is
         cross-entropy (DINO)
  patch  the same of hidden patches, which the student sees hidden (iBOT); the
         teacher sees the whole image
  koleo  -ln of the distance to the nearest other image of the batch, of
         features of unit length (weight .1)

Checked against NumPy. Ours, since the teacher's heads were not published with
its weights: prototypes are random directions of the teacher's space, which
stay; the student comes there by an MLP of two layers, thrown away afterwards;
there is one view instead of two large and several small ones.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.align import maps
from kd_jax.methods import one_phase, queue
from kd_jax.methods.recent import lightly_dense
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Variables

_EPS = 1e-8


@dataclasses.dataclass(frozen=True)
class Method(one_phase.WithHidden):
  """Prototypes, hidden patches and spread.

  Attributes:
    terms: 'image', 'patch' and 'koleo', and 'kl' and 'ce' beside them.
    prototypes: their number.
    hidden: width of the middle of the head.
    temperature: of the student's scores.
    teacher_temperature: of the teacher's.

  Raises:
    ValueError: a value that is not allowed.
  """

  OWN: ClassVar[tuple[str, ...]] = ("image", "patch", "koleo")

  terms: tuple[str, ...] = OWN
  prototypes: int = 4096
  hidden: int = 2048
  temperature: float = 0.1
  teacher_temperature: float = 0.07

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("prototypes", "hidden", "temperature", "teacher_temperature")

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A vector of each, and with 'patch' the teacher's map."""
    patch = (self.teacher,) if "patch" in self.terms else ()
    return (self.token,), (self.token, *patch)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """A head per term that has prototypes, and these."""
    params, prototypes = {}, {}
    pairs = {
      "image": (self.token, self.token),
      "patch": (self.student, self.teacher),
    }
    for index, (term, (ours, theirs)) in enumerate(pairs.items()):
      if term not in self.own:
        continue
      if term == "patch":
        one_phase.check_maps(ours, "student", student)
        one_phase.check_maps(theirs, "teacher", teacher)
      own, rows = jax.random.split(jax.random.fold_in(key, index))
      width = teacher[theirs].shape[-1]
      head = lightly_dense.Head(width, self.hidden)
      x = jnp.zeros((1, student[ours].shape[-1]))
      params[term] = head.init(own, x)["params"]
      prototypes[term] = queue.random_rows(rows, self.prototypes, width)
    return {"params": params, "prototypes": prototypes} if params else {}

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Means over the images, and over what is hidden."""
    del batch
    x, found = student[self.token], {}
    if "image" in self.own:
      target = teacher[self.token]
      every = jnp.ones(len(target), target.dtype)
      found["image"] = self._scored("image", variables, x, target, every)
    if "koleo" in self.own:
      found["koleo"] = koleo(x)
    if "patch" in self.own:
      target = maps.as_map(teacher[self.teacher])
      size = target.shape[1:3]
      second = one_phase.wide(student[f"hidden/{self.student}"])
      second = lightly_dense.resized(maps.as_map(second), size)
      mask = student["hidden/mask"].astype(target.dtype)
      mask = jax.image.resize(mask, (len(mask), *size), "nearest").reshape(-1)
      x, target = (y.reshape(-1, y.shape[-1]) for y in (second, target))
      found["patch"] = self._scored("patch", variables, x, target, mask)
    return found, {}

  def _scored(
    self, term: str, variables: Variables, x: Array, target: Array, mask: Array
  ) -> Array:
    """Cross-entropy of the scores, mean over the rows of the mask."""
    head = lightly_dense.Head(target.shape[-1], self.hidden)
    x = jnp.asarray(head.apply({"params": variables["params"][term]}, x))
    prototypes = variables["prototypes"][term]
    scores, wanted = (
      jnp.matmul(
        queue.unit(y), prototypes.T, precision=jax.lax.Precision.HIGHEST
      )
      for y in (x, target)
    )
    share = balanced(wanted / self.teacher_temperature, mask)
    log_p = jax.nn.log_softmax(scores / self.temperature)
    total = jnp.maximum(jnp.sum(mask), 1)
    return -jnp.sum(mask[:, None] * share * log_p) / total


def balanced(
  scores: Float[Array, "n k"], mask: Float[Array, " n"], rounds: int = 3
) -> Float[Array, "n k"]:
  """Probabilities per row with which all columns are used alike.

  Sinkhorn-Knopp: columns, then rows, get equal sums in turn.

  Args:
    scores: logits.
    mask: rows that count, 1; the others are 0 everywhere.
    rounds: how often.
  """
  scores = scores - jnp.max(scores)
  share = jnp.exp(scores) * mask[:, None]
  for _ in range(rounds):
    share = share / jnp.maximum(jnp.sum(share, 0), 1e-30) / share.shape[1]
    rows = jnp.maximum(jnp.sum(share, 1, keepdims=True), 1e-30)
    share = share / rows
  return jax.lax.stop_gradient(share)


def koleo(x: Float[Array, "n d"]) -> Float[Array, ""]:
  """-ln of the distance to the nearest other row, mean; rows of unit length.

  Sablayrolles et al., ICLR 2019.
  """
  rows = queue.unit(x)
  inner = jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST)
  others = jnp.where(jnp.eye(len(rows), dtype=bool), -1.0, inner)
  nearest = rows[jnp.argmax(jax.lax.stop_gradient(others), -1)]
  square = jnp.sum(jnp.square(rows - nearest), -1)
  return -jnp.mean(jnp.log(jnp.sqrt(square + _EPS**2) + _EPS))
