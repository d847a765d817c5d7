"""Batch normalisation inside the convolutions that it follows, for inference.

Any network: a trace of it says which normalisation reads the output of which
convolution or linear layer, and that nothing else reads it. The variables keep
their names and shapes; the kernel is scaled, and the normalisation only adds
its bias.

Windows of one pixel are products of matrices: on CPUs XLA runs those a few
percent faster than its convolutions.
"""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen import dtypes
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core
from jaxtyping import Array, Float

from kd_jax import trees
from kd_jax.models.backbone import Backbone, variable_shapes
from kd_jax.models.blocks.layers import BatchNorm, Conv

_LINEAR = (Conv, nn.Dense)
_READ = "read by a normalisation"


def fold(
  model: Backbone, variables: Mapping[str, Any]
) -> tuple[
  dict[str, Any], Callable[[], contextlib.AbstractContextManager[None]]
]:
  """Scales the kernels, and says how to run the model with them.

  Args:
    model: the network.
    variables: {'params': ..., 'batch_stats': ...}; computed in float64 and
      rounded to float32.

  Returns:
    (variables, context): `with context(): model.apply(variables, images)`
    gives what the model gives for the old ones, without training.
  """
  pairs = _pairs(model)
  flat = dict(trees.flatten(jax.device_get(variables)))
  for norm, (layer, eps) in pairs.items():
    wide = {
      leaf: np.asarray(flat[f"{kind}/{norm}/{leaf}"], np.float64)
      for kind, leaf in (
        ("params", "scale"),
        ("params", "bias"),
        ("batch_stats", "mean"),
        ("batch_stats", "var"),
      )
    }
    gain = wide["scale"] / np.sqrt(wide["var"] + eps)
    for leaf in ("kernel", "bias"):
      path = f"params/{layer}/{leaf}"
      if path in flat:
        flat[path] = np.float32(np.asarray(flat[path], np.float64) * gain)
    bias = wide["bias"] - wide["mean"] * gain
    flat[f"params/{norm}/bias"] = np.float32(bias)
  context = functools.partial(_without, frozenset(pairs))
  return trees.unflatten(flat), context


@contextlib.contextmanager
def _without(norms: frozenset[str]) -> Iterator[None]:
  """The normalisations at these paths add their biases, and nothing else.

  Convolutions are as `_product` says.
  """

  def within(
    call: Callable[..., Array],
    args: tuple[Array, ...],
    kwargs: dict[str, bool],
    context: nn.module.InterceptorContext,
  ) -> Array:
    module = context.module
    if isinstance(module, Conv) and _called(context, Conv):
      y = _product(module, args[0])
      return call(*args, **kwargs) if y is None else y
    if not _called(context, BatchNorm) or _path(module) not in norms:
      return call(*args, **kwargs)
    bias = module.variables["params"]["bias"]
    return args[0] + bias.astype(args[0].dtype)

  with nn.intercept_methods(within):
    yield


def _product(
  module: Conv, x: Float[Array, "n h w c"]
) -> Float[Array, "n h w d"] | None:
  """What a convolution of single pixels computes; None of another one."""
  if (module.size, module.stride, module.groups) != (1, 1, 1):
    return None
  params = module.variables["params"]
  x, kernel = dtypes.promote_dtype(x, params["kernel"], dtype=module.dtype)
  y = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
  y = y.reshape(*x.shape[:-1], module.features)
  return y + params["bias"].astype(y.dtype) if module.use_bias else y


def _pairs(model: Backbone) -> dict[str, tuple[str, float]]:
  """{normalisation: (layer whose output it reads, eps)}, by their paths."""
  outputs: dict[int, tuple[str, Array]] = {}
  calls: collections.Counter[str] = collections.Counter()
  pairs: dict[str, tuple[str, float]] = {}

  def note(
    call: Callable[..., Array],
    args: tuple[Array, ...],
    kwargs: dict[str, bool],
    context: nn.module.InterceptorContext,
  ) -> Array:
    module = context.module
    if _called(context, BatchNorm) and id(args[0]) in outputs:
      pairs[_path(module)] = outputs[id(args[0])][0], module.eps
      # However often it looks at its input, in the trace that is one reader.
      args = (checkpoint_name(args[0], _READ), *args[1:])
    y = call(*args, **kwargs)
    if _called(context, _LINEAR):
      calls[_path(module)] += 1
      y = checkpoint_name(y, _path(module))
      # Kept, so that no other array has its id.
      outputs[id(y)] = _path(module), y
    return y

  image = jax.ShapeDtypeStruct((1, *model.example_size, 3), jnp.float32)
  run = functools.partial(model.apply, train=False)
  with nn.intercept_methods(note):
    traced = jax.make_jaxpr(run)(variable_shapes(model), image)
  readers = _readers(traced.jaxpr)
  return {
    norm: (layer, eps)
    for norm, (layer, eps) in pairs.items()
    if calls[layer] == 1 and readers[layer] == 1
  }


def _readers(jaxpr: core.Jaxpr) -> collections.Counter[str]:
  """How many operations, or outputs, read what has a name."""
  uses: collections.Counter[int] = collections.Counter()
  for atoms in (*(e.invars for e in jaxpr.eqns), jaxpr.outvars):
    uses.update(id(atom) for atom in atoms)
  found: collections.Counter[str] = collections.Counter()
  for equation in jaxpr.eqns:
    if equation.primitive.name == "name":
      found[equation.params["name"]] += uses[id(equation.outvars[0])]
    for inner in core.jaxprs_in_params(equation.params):
      found.update(_readers(inner))
  return found


def _called(
  context: nn.module.InterceptorContext,
  kind: type[nn.Module] | tuple[type[nn.Module], ...],
) -> bool:
  own = isinstance(context.module, kind)
  return own and context.method_name == "__call__"


def _path(module: nn.Module) -> str:
  return "/".join(module.path)
