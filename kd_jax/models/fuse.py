"""Networks with parallel branches as the plain ones that run in their place.

The field `fused` of a family says that it has such a form; its tensors are
those of timm's `reparameterize_model`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array

from kd_jax import trees
from kd_jax.models.backbone import Backbone, variable_shapes
from kd_jax.models.convs.conv_norm import Mergeable


def can_merge(model: Backbone) -> bool:
  """Whether the model has a merged form, and is not in it."""
  fields = {f.name for f in dataclasses.fields(model)}
  return "fused" in fields and not vars(model)["fused"]


def merge(
  model: Backbone, variables: Mapping[str, Any]
) -> tuple[Backbone, dict[str, Any]]:
  """The merged form; its outputs are those of the model without training.

  Args:
    model: a model that `can_merge`.
    variables: {'params': ..., 'batch_stats': ...}; computed in float64 and
      rounded to float32.

  Returns:
    (model, variables) of the merged form.

  Raises:
    ValueError: there is none.
  """
  if not can_merge(model):
    raise ValueError(
      "this model has no branches to merge, or they are merged already; "
      "RepVGG, MobileOne, RepViT, FastViT and GhostNet V3 have"
    )
  flat = trees.flatten(jax.device_get(variables))
  fused = model.clone(fused=True)
  single = trees.flatten(variable_shapes(fused)["params"])
  parts = {
    path: module
    for path, module in _mergeable(model).items()
    if f"{path}/merged/kernel" in single
  }
  inside = {
    path: value
    for path, value in flat.items()
    if not trees.is_under(_below(path), parts)
  }
  for path, module in parts.items():
    for name, value in module.merge(_tensors(flat, path)).items():
      inside[f"params/{path}/{name}"] = np.float32(value)
  return fused, trees.unflatten({k: jnp.asarray(v) for k, v in inside.items()})


def _below(path: str) -> str:
  """'params/a/b' -> 'a/b'."""
  return path.partition("/")[2]


def _tensors(flat: Mapping[str, Array], path: str) -> dict[str, np.ndarray]:
  """What lies below a module, in float64."""
  return {
    _below(name)[len(path) + 1 :]: np.asarray(value, np.float64)
    for name, value in flat.items()
    if trees.is_under(_below(name), [path])
  }


def _mergeable(model: Backbone) -> dict[str, Mergeable]:
  """{path: module}, the outermost ones."""
  found: dict[str, Mergeable] = {}

  def note(
    call: Callable[..., Array],
    args: tuple[Array, ...],
    kwargs: dict[str, bool],
    context: nn.module.InterceptorContext,
  ) -> Array:
    module = context.module
    if isinstance(module, Mergeable) and context.method_name == "__call__":
      path = "/".join(module.path)
      if not trees.is_under(path, found):
        found[path] = module.clone(parent=None)
    return call(*args, **kwargs)

  image = jax.ShapeDtypeStruct((1, *model.example_size, 3), jnp.float32)
  init = functools.partial(model.init, train=False)
  with nn.intercept_methods(note):
    jax.eval_shape(init, jax.random.key(0), image)
  return found
