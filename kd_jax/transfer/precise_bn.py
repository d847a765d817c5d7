"""Batch statistics measured anew, over many batches with fixed weights.

PreciseBN (arXiv:2105.07576, section 3): a running average mixes statistics of
weights that have changed meanwhile; these do not.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax import trees
from kd_jax.models.blocks import layers
from kd_jax.train.views import as_unit
from kd_jax.types import ArrayTree, Batch, Network, Phase, Variables

_OBSERVED = "moments"
_MEAN, _SQUARE = "mean", "square"


@dataclasses.dataclass(frozen=True, eq=False)
class Precise:
  """Measures what every BatchNorm that uses its batch sees of it.

  Attributes:
    student: the network.
    phase: says which stages use the statistics of their batch, and whether the
      network is given the labels.
  """

  student: Network
  phase: Phase

  def __call__(
    self, variables: Variables, batches: Iterable[Batch]
  ) -> Variables:
    """The network with the statistics of `batches`, each counting alike.

    The variance is that of all values of a channel: the part between batches,
    which a mean of variances misses, is in it.

    Args:
      variables: of the network, on the devices.
      batches: training batches, on the devices.

    Raises:
      ValueError: there is no batch.
    """
    total, count = None, 0
    for batch in batches:
      seen = self._observe(variables, batch)
      total = seen if total is None else _sum(total, seen)
      jax.block_until_ready(total)  # batches would pile up in memory
      count += 1
    if total is None:
      raise ValueError(
        "batch statistics are measured on at least one batch; got none"
      )
    found = _statistics(jax.tree.map(lambda x: x / count, total))
    stats = trees.overlay(variables["batch_stats"], found)
    return {**variables, "batch_stats": stats}

  # Compiled once per shape of batches, however often it is asked for.
  @functools.cached_property
  def _observe(self) -> Callable[[Variables, Batch], ArrayTree]:
    return jax.jit(self._observed)

  def _observed(self, variables: Variables, batch: Batch) -> ArrayTree:
    """{path of a BatchNorm: {'mean': (c,), 'square': (c,)}} of a batch."""
    truth = {"truth": batch.label} if self.phase.needs.truth else {}
    with nn.intercept_methods(_watch):
      _, seen = self.student.apply(
        variables,
        as_unit(batch.image),
        **truth,
        train=True,
        train_from=self.phase.train_from or "stem",
        mutable=["batch_stats", _OBSERVED],
        rngs={"dropout": jax.random.key(0)},
      )
    return seen.get(_OBSERVED, {})


def _watch(
  call: Callable[..., Array],
  args: tuple[Array, ...],
  kwargs: Mapping[str, bool],
  context: nn.module.InterceptorContext,
) -> Array:
  """Notes the moments of what a BatchNorm in training mode is called with."""
  module = context.module
  own = isinstance(module, layers.BatchNorm)
  if own and context.method_name == "__call__" and kwargs["train"]:
    for name, value in zip((_MEAN, _SQUARE), _moments(args[0]), strict=True):
      module.sow(_OBSERVED, name, value, reduce_fn=_newest, init_fn=tuple)
  return call(*args, **kwargs)


def _newest(_: Array | tuple[()], new: Array) -> Array | tuple[()]:
  return new


def _moments(
  x: Float[Array, "n *b c"],
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
  """Mean and mean square, the latter without the digits that squaring loses."""
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  axes = tuple(range(x.ndim - 1))
  mean = x.mean(axes)
  return mean, jnp.square(x - mean).mean(axes) + jnp.square(mean)


def _statistics(means: ArrayTree) -> dict[str, Array]:
  """{path: leaf} of 'batch_stats' from the mean moments."""
  found, flat = {}, trees.flatten(means)
  for path in [path for path in flat if path.endswith(f"/{_MEAN}")]:
    module = path.removesuffix(f"/{_MEAN}")
    variance = flat[f"{module}/{_SQUARE}"] - jnp.square(flat[path])
    found[path] = flat[path]
    # Rounding could make that of a constant channel negative.
    found[f"{module}/var"] = jnp.maximum(variance, 0)
  return found


@jax.jit
def _sum(total: ArrayTree, new: ArrayTree) -> ArrayTree:
  return jax.tree.map(jnp.add, total, new)
