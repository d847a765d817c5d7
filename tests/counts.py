"""Numbers of parameters; modules that repeat are traced once."""

from __future__ import annotations

import dataclasses
import math
import re

import convzoo
import jax
import jax.numpy as jnp
import zoo
from flax import linen as nn

from kd_jax import models, resolve

# Ends of the names of classes that a network has many of, each called once.
REPEATED = (
  *("Block", "Layer", "Local", "MBConv", "MbConv", "ConvNext"),
  *("Partition", "Transformer", "Bottleneck"),
)
# Fields that no shape depends on; nor on the initialization, a function.
IDLE = {"parent", "name", "number"}
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
PLAIN = (bool, int, float, str, type(None))


def check(family, counts, every=1):
  """Variants of a family have as many parameters as in timm.

  Args:
    family: module of `kd_jax.models`.
    counts: {variant: parameters in timm}.
    every: one in so many variants is looked at.
  """
  assert sorted(counts) == sorted(resolve.symbol("models", family, "VARIANTS"))
  known = {}
  for name, want in [*counts.items()][::every]:
    assert parameters(models.create_model(name), known) == want, name


def parameters(model, known):
  """How many parameters a model has.

  Args:
    model: a network.
    known: what earlier calls have found of modules; this one adds to it.
  """
  skipped, traced = {}, set()

  def once(call, args, kwargs, context):
    module = context.module
    repeats = type(module).__name__.endswith(REPEATED)
    if context.method_name != "__call__" or not repeats:
      return call(*args, **kwargs)
    key = _key(module, args, kwargs)
    if key in known:
      size, shapes = known[key]
      if module.path not in traced:  # it may be called twice
        skipped[module.path] = size
      return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    skipped.pop(module.path, None)
    traced.add(module.path)
    before = sum(skipped.values())
    y = call(*args, **kwargs)
    if all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(y)):
      shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), y)
      own = module.variables.get("params", {})
      known[key] = _size(own) + sum(skipped.values()) - before, shapes
    return y

  with nn.intercept_methods(once), convzoo.native_depthwise():
    params = zoo.shapes(model)[1].get("params", {})
  return _size(params) + sum(skipped.values())


def _key(module, args, kwargs):
  """What the variables of a module depend on."""
  fields = {f.name for f in dataclasses.fields(module)} - IDLE
  values = tuple(
    (f, ADDRESS.sub("", repr(getattr(module, f)))) for f in sorted(fields)
  )
  inputs, treedef = jax.tree.flatten((args, kwargs))
  return type(module), values, tuple(map(_kind, inputs)), treedef


def _kind(leaf):
  """Of what is neither an array nor a plain value, its type."""
  if hasattr(leaf, "shape"):
    return leaf.shape
  return leaf if isinstance(leaf, PLAIN) else type(leaf)


def _size(tree):
  return sum(math.prod(a.shape) for a in jax.tree.leaves(tree))
