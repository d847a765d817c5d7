"""Numbers of parameters; modules that repeat are traced once."""

from __future__ import annotations

import dataclasses
import math

import convzoo
import jax
import jax.numpy as jnp
import zoo
from flax import linen as nn

from kd_jax import models, resolve

PLAIN = (bool, int, float, str, type(None))


def check(family, counts):
  """Every variant of a family has as many parameters as in timm.

  Args:
    family: module of `kd_jax.models`.
    counts: {variant: parameters in timm}.
  """
  assert sorted(counts) == sorted(resolve.symbol("models", family, "VARIANTS"))
  known = {}
  for name, want in counts.items():
    assert parameters(models.create_model(name), known) == want, name


def parameters(model, known):
  """How many parameters a model has.

  Args:
    model: a network.
    known: what earlier calls have found of modules; this one adds to it.
  """
  skipped = [0]

  def once(call, args, kwargs, context):
    module = context.module
    if context.method_name != "__call__" or not module.path:
      return call(*args, **kwargs)
    key = _key(module, args, kwargs)
    if key in known:
      size, shapes = known[key]
      skipped[0] += size
      return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    before = skipped[0]
    y = call(*args, **kwargs)
    if all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(y)):
      shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), y)
      own = module.variables.get("params", {})
      known[key] = _size(own) + skipped[0] - before, shapes
    return y

  with nn.intercept_methods(once), convzoo.native_depthwise():
    params = zoo.shapes(model)[1].get("params", {})
  return _size(params) + skipped[0]


def _key(module, args, kwargs):
  """What the variables of a module depend on."""
  fields = {f.name for f in dataclasses.fields(module)} - {"parent", "name"}
  values = tuple((f, repr(getattr(module, f))) for f in sorted(fields))
  inputs, treedef = jax.tree.flatten((args, kwargs))
  return type(module), values, tuple(map(_kind, inputs)), treedef


def _kind(leaf):
  """Of what is neither an array nor a plain value, its type."""
  if hasattr(leaf, "shape"):
    return leaf.shape
  return leaf if isinstance(leaf, PLAIN) else type(leaf)


def _size(tree):
  return sum(math.prod(a.shape) for a in jax.tree.leaves(tree))
