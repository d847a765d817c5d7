"""Theia: spatial features of several teachers (Shang et al., CoRL 2024).

arXiv:2407.20179. Only patches are learnt, the term 'patches': the student's map
goes through a translator, one for each teacher, and is compared with the
teacher's map, every channel of which has mean 0 and variance 1:

  loss = .9 (1 - cosine of the flattened map) + .1 smooth L1 (beta 1)

Teachers weigh the same (`config.teachers`, `config.balance.name=fixed`). The
translator is LayerNorm, a linear layer, convolutions, and a linear layer to the
teacher's width; it is thrown away afterwards. The loss is verified against the
figures of the released function, the standardisation against NumPy.

Ours: two convolutions of 3 x 3, each with ReLU and LayerNorm behind; the map
comes to the teacher's grid in front of them (bilinear; transposed convolutions
there). Mean and variance are fitted on the images of the run before step 0;
there they come with the extracted features.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from kd_jax.align import maps
from kd_jax.align.balance import standardise
from kd_jax.methods.kdep_dense import interpolated
from kd_jax.methods.recent import per_image
from kd_jax.models.blocks import layers
from kd_jax.types import Array, Specs, Taps, Variables

COSINE = 0.9  # its share; the rest is smooth L1's


@dataclasses.dataclass(frozen=True)
class Method(per_image.PerImage):
  """Cosine of whole maps, and smooth L1.

  Attributes:
    terms: 'patches', and 'kl' and 'ce' beside it.
    hidden: width of the translator.
    convolutions: of 3 x 3; 0 has none.

  Raises:
    ValueError: a value that is not allowed.
  """

  OWN: ClassVar[tuple[str, ...]] = (per_image.PATCHES,)

  terms: tuple[str, ...] = OWN
  hidden: int = 1024
  convolutions: int = 2

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("hidden")
    if self.convolutions < 0:
      raise ValueError(
        f"method.convolutions is {self.convolutions}; it must be at least 0"
      )

  @property
  def artifact_taps(self) -> tuple[str, ...]:
    """The teacher's map."""
    return (self.teacher,)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """Parameters of the translator."""
    ours, theirs = self.widths(per_image.PATCHES, student, teacher)
    x = jnp.zeros((1, 1, 1, ours))
    return {"params": self._translator(theirs, (1, 1)).init(key, x)["params"]}

  def per_image(
    self, variables: Variables, student: Taps, teacher: Taps
  ) -> dict[str, Float[Array, " n"]]:
    """See the top of this file."""
    target = maps.as_map(teacher[self.teacher])
    artifact = variables["artifact"][self.teacher]
    target = standardise.Aligner().teacher(artifact, target, 0)
    translator = self._translator(target.shape[-1], target.shape[1:3])
    own = {"params": variables["params"]}
    x = jnp.asarray(translator.apply(own, maps.as_map(student[self.student])))
    pair = (maps.as_tokens(side) for side in (x, target))
    return {per_image.PATCHES: distance(*pair)}

  def _translator(self, width: int, grid: tuple[int, ...]) -> Translator:
    return Translator(width, grid, self.hidden, self.convolutions)


class Translator(nn.Module):
  """From the student's map to a teacher's; thrown away afterwards.

  Attributes:
    width: the teacher's.
    grid: the teacher's, height and width.
    hidden: channels in between.
    convolutions: their number.
  """

  width: int
  grid: tuple[int, ...]
  hidden: int
  convolutions: int

  @nn.compact
  def __call__(self, x: Float[Array, "n h w s"]) -> Float[Array, "n y x d"]:
    """LayerNorm, linear, convolutions on the teacher's grid, linear."""
    x = layers.layer_norm(1e-5, None, "norm")(x)
    x = nn.Dense(self.hidden, name="adapter")(x)
    x = interpolated(x, self.grid)
    start = nn.initializers.lecun_normal()
    fields = {"size": 3, "use_bias": True, "kernel_init": start}
    for i in range(self.convolutions):
      conv = layers.Conv(self.hidden, name=f"conv{i}", **fields)
      x = nn.relu(conv(x))
      x = layers.layer_norm(1e-5, None, f"norm{i}")(x)
    return nn.Dense(self.width, name="out")(x)


def distance(
  x: Float[Array, "n p d"], target: Float[Array, "n p d"]
) -> Float[Array, " n"]:
  """Of every image: .9 of the flattened maps' cosine, .1 of smooth L1."""
  flat, wanted = (y.reshape(len(y), -1) for y in (x, target))
  away = per_image.away(flat, wanted)
  return COSINE * away + (1 - COSINE) * per_image.smooth(flat, wanted)
