"""UNIC: one encoder of several teachers, with a ladder of projectors.

Sariyildiz et al., ECCV 2024 (arXiv:2408.05088). For the class token and for
the patches of each teacher, an MLP (linear, GELU, linear) stands on every
block of the student; their sum is compared with the teacher's output, every
channel of which has mean 0 and variance 1:

  loss = (1 - cosine) / 2 + smooth L1 (beta 1, mean over channels) / 2

of every token, mean over the patches of an image. The terms 'summary' and
'patches' weigh one half each. MLPs are thrown away afterwards. With several
teachers (`config.teachers`) `config.balance.name=dropping` drops them image by
image, as there. Losses and dropping are verified against the figures of the
released functions, the ladder against NumPy.

Ours: the rungs are stages unless `ladder` names others (blocks of a plain
transformer, 'block00' and so on, are taps); a map without a class token gives
the mean of its patches for it; maps come to the teacher's grid before the MLP.
Mean and variance of the teacher are fitted on the images of the run before
step 0; there they are moving averages.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from kd_jax.align import maps
from kd_jax.align.balance import standardise
from kd_jax.methods import one_phase
from kd_jax.methods.kdep_dense import interpolated
from kd_jax.methods.recent import per_image
from kd_jax.types import Array, Specs, Taps, Variables


@dataclasses.dataclass(frozen=True)
class Method(per_image.PerImage):
  """Cosine and smooth L1 of standardised tokens, from all depths.

  Attributes:
    ladder: taps of the student below its output, maps or tokens.
    hidden: width of the middle of their MLPs.
    last_hidden: of that of the output's.

  Raises:
    ValueError: a width that is not positive.
  """

  ladder: tuple[str, ...] = ("stage1", "stage2", "stage3")
  hidden: int = 768
  last_hidden: int = 3072

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("hidden", "last_hidden")

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ladder and the output; the output of the teacher."""
    ours, theirs = super().reads()
    return tuple(dict.fromkeys((*self.ladder, *ours))), theirs

  @property
  def artifact_taps(self) -> tuple[str, ...]:
    """All that it reads of the teacher."""
    return self.reads()[1]

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """An MLP for every term and rung."""
    params: dict[str, dict[str, Variables]] = {}
    for tap in self.ladder:
      one_phase.check_maps(tap, "student", student)
    for place, term in enumerate(self.own):
      _, width = self.widths(term, student, teacher)
      params[term] = {}
      for depth, (tap, hidden) in enumerate(self._rungs(term).items()):
        own = jax.random.fold_in(key, 100 * place + depth)
        x = jnp.zeros((1, student[tap].shape[-1]))
        params[term][tap] = Projector(width, hidden).init(own, x)["params"]
    return {"params": params}

  def per_image(
    self, variables: Variables, student: Taps, teacher: Taps
  ) -> dict[str, Float[Array, " n"]]:
    """See the top of this file."""
    found = {}
    for term in self.own:
      tap = self.pair(term)[1]
      target = standardise.Aligner().teacher(
        variables["artifact"][tap], teacher[tap], 0
      )
      y = self._projected(term, variables["params"][term], student, target)
      found[term] = distance(y, per_image.rows(target))
    return found

  def _rungs(self, term: str) -> dict[str, int]:
    """{tap: width of the middle of its MLP}."""
    last = {self.pair(term)[0]: self.last_hidden}
    return dict.fromkeys(self.ladder, self.hidden) | last

  def _projected(
    self, term: str, params: Variables, student: Taps, target: Array
  ) -> Float[Array, "n p d"]:
    """The sum over the ladder."""
    total = jnp.zeros(())
    for tap, hidden in self._rungs(term).items():
      x = student[tap]
      if term == per_image.SUMMARY:
        x = summary(x)
      else:
        x = interpolated(maps.as_map(x), maps.grid_of(target.shape))
      projector = Projector(target.shape[-1], hidden)
      own = {"params": params[tap]}
      total += jnp.asarray(projector.apply(own, per_image.rows(x)))
    return total


class Projector(nn.Module):
  """What stands on a rung while training.

  Attributes:
    width: the teacher's.
    hidden: of the middle.
  """

  width: int
  hidden: int

  @nn.compact
  def __call__(self, x: Float[Array, "*n s"]) -> Float[Array, "*n d"]:
    """Linear, GELU, linear, at every position."""
    start = nn.initializers.truncated_normal(0.02)
    x = nn.Dense(self.hidden, kernel_init=start, name="hidden")(x)
    x = jax.nn.gelu(x, approximate=False)
    return nn.Dense(self.width, kernel_init=start, name="out")(x)


def distance(
  x: Float[Array, "n p d"], target: Float[Array, "n p d"]
) -> Float[Array, " n"]:
  """Cosine and smooth L1, half each, mean over the tokens of an image."""
  both = per_image.away(x, target) + per_image.smooth(x, target)
  return jnp.mean(both, -1) / 2


def summary(x: Float[Array, "n *t c"]) -> Float[Array, "n c"]:
  """A vector per image: the class token if there is one, or the mean."""
  if x.ndim == 2:
    return x
  patches = maps.as_tokens(x)
  if x.ndim == 3 and x.shape[1] > patches.shape[1]:
    return x[:, 0]
  return jnp.mean(patches, 1)
