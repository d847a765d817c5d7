"""Proteus: class token, features and hidden patches (Zhang et al., ICLR 2025).

Three terms of weight 1, each a mean squared error after a head of LayerNorm
and a linear layer to the teacher's width:

  token    class tokens
  feature  class and patch tokens together; the class token through the head of
           `token`, patches through one of their own
  patch    hidden patches: the student runs a second time on images in which
           patches are hidden (half of the images, up to half of the patches),
           compared with what the teacher says about the whole image

Teachers such as CLIP take `token` alone. By the released code's description;
checked against NumPy.

Ours: networks without a class token take the tap 'pooled' for it; a hidden
patch has the mean colour of its image (a learnt token there, which only a
plain transformer can have); the student's map is resized to the teacher's.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from kd_jax import losses
from kd_jax.align import maps
from kd_jax.methods import one_phase
from kd_jax.methods.recent import lightly_dense
from kd_jax.models.blocks import layers
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Variables


@dataclasses.dataclass(frozen=True)
class Method(one_phase.WithHidden):
  """Tokens by mean squared error, of whole and of partly hidden images.

  Attributes:
    terms: 'token', 'feature' and 'patch', and 'kl' and 'ce' beside them.

  Raises:
    ValueError: a value that is not allowed.
  """

  OWN: ClassVar[tuple[str, ...]] = ("token", "feature", "patch")

  terms: tuple[str, ...] = OWN

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A vector of each, and a map of each unless 'token' is alone."""
    if self.own == ("token",):
      return (self.token,), (self.token,)
    return (self.token, self.student), (self.token, self.teacher)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """A head per term; 'feature' reads that of 'token' too."""
    names = {*self.own, *(("token",) if "feature" in self.own else ())}
    params = {}
    for index, name in enumerate(sorted(names)):
      ours, theirs = (self.token,) * 2
      if name != "token":
        ours, theirs = self.student, self.teacher
        one_phase.check_maps(ours, "student", student)
        one_phase.check_maps(theirs, "teacher", teacher)
      own = jax.random.fold_in(key, index)
      x = jnp.zeros((1, student[ours].shape[-1]))
      head = Head(teacher[theirs].shape[-1])
      params[name] = head.init(own, x)["params"]
    return {"params": params}

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Means over tokens and images; of 'patch' over what is hidden."""
    del batch
    params = variables["params"]
    found = {}
    token, target = jnp.zeros(()), teacher[self.token]
    if "token" in params:
      token = headed(params["token"], student[self.token], target)
      found["token"] = losses.mse(token, target)
    if "feature" in self.own:
      patches = self._squares(params["feature"], student[self.student], teacher)
      square = jnp.mean(jnp.square(token - target), -1, keepdims=True)
      flat = patches.reshape(patches.shape[0], -1)
      found["feature"] = jnp.mean(jnp.concatenate([square, flat], 1))
    if "patch" in self.own:
      x = one_phase.wide(student[f"hidden/{self.student}"])
      squares = self._squares(params["patch"], x, teacher)
      mask = student["hidden/mask"].astype(squares.dtype)
      size = (len(mask), *squares.shape[1:])
      mask = jax.image.resize(mask, size, "nearest")
      total = jnp.maximum(jnp.sum(mask), 1)
      found["patch"] = jnp.sum(mask * squares) / total
    return found, {}

  def _squares(
    self, params: Variables, x: Array, teacher: Taps
  ) -> Float[Array, "n h w"]:
    """Squared errors on the teacher's grid, mean over the channels."""
    target = maps.as_map(teacher[self.teacher])
    y = headed(params, maps.as_map(x), target)
    y = lightly_dense.resized(y, target.shape[1:3])
    return jnp.mean(jnp.square(y - target), -1)


class Head(nn.Module):
  """LayerNorm and a linear layer; thrown away afterwards.

  Attributes:
    width: the teacher's.
  """

  width: int

  @nn.compact
  def __call__(self, x: Float[Array, "*n s"]) -> Float[Array, "*n d"]:
    """At every position."""
    return nn.Dense(self.width, name="out")(
      layers.layer_norm(1e-6, None, "norm")(x)
    )


def headed(params: Variables, x: Array, target: Array) -> Array:
  """What a head makes of x, as wide as the target."""
  return jnp.asarray(Head(target.shape[-1]).apply({"params": params}, x))
