"""Counts the operations of a traced function, independent of any compiler.

Matrix products and convolutions, two operations per multiply-add, wherever they
are: in loops, branches, and functions with gradients of their own. On request
also what is done to every element, one operation each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

# One operation per element of the result.
_ELEMENTWISE = frozenset(
  (
    "abs",
    "add",
    "add_any",
    "and",
    "clamp",
    "convert_element_type",
    "div",
    "eq",
    "floor",
    "ge",
    "gt",
    "integer_pow",
    "le",
    "lt",
    "max",
    "min",
    "mul",
    "ne",
    "neg",
    "not",
    "or",
    "rem",
    "round",
    "select_n",
    "sign",
    "square",
    "sub",
    "xor",
  )
)
# One per element that goes in.
_REDUCTIONS = frozenset(("argmax", "reduce_max", "reduce_min", "reduce_sum"))


def count(
  jaxpr: core.Jaxpr,
  *,
  padded: bool = False,
  turns: bool = True,
  elements: bool = False,
) -> int:
  """Operations of a traced function, on all devices together.

  Of branches the most expensive one counts, of those for different platforms
  the last: it is the plain operation. A loop without a known number of turns
  counts once.

  Args:
    jaxpr: the function.
    padded: whether products with padding, and with the holes of dilated
      inputs, count too; what is useful are those without.
    turns: whether loops count as often as they run, and not once.
    elements: whether sums, scalings, comparisons and casts of every element
      count too, as compilers count them; roots and exponentials do not.
  """
  return sum(_of(each, padded, turns, elements) for each in jaxpr.eqns)


def needed(jaxpr: core.Jaxpr) -> core.Jaxpr:
  """The same function without what no output depends on.

  Compilers drop it too: the stages of a teacher that a phase does not read.
  """
  outputs = [True] * len(jaxpr.outvars)
  return partial_eval.dce_jaxpr(jaxpr, outputs, instantiate=True)[0]


def _of(equation: Any, padded: bool, turns: bool, elements: bool) -> int:
  kind, params = equation.primitive.name, equation.params
  if kind == "dot_general":
    (contracted, _), _ = params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    depth = math.prod(shape[axis] for axis in contracted)
    return 2 * depth * math.prod(equation.outvars[0].aval.shape)
  if kind == "conv_general_dilated":
    return _convolution(equation, padded)
  if kind in _ELEMENTWISE or kind in _REDUCTIONS:
    array = (equation.outvars if kind in _ELEMENTWISE else equation.invars)[0]
    return math.prod(array.aval.shape) if elements else 0
  counts = [
    count(x, padded=padded, turns=turns, elements=elements)
    for x in _inner(params.values())
  ]
  if kind == "cond":
    by_platform = params.get("branches_platforms") is not None
    return counts[-1] if by_platform else max(counts)
  return (params.get("length", 1) if turns else 1) * sum(counts)


def _convolution(equation: Any, padded: bool) -> int:
  params, out = equation.params, equation.outvars[0].aval.shape
  image, kernel = (x.aval.shape for x in equation.invars)
  numbers = params["dimension_numbers"]
  _, inputs, *kernel_axes = numbers.rhs_spec
  depth = kernel[inputs]
  if padded:
    depth *= math.prod(kernel[axis] for axis in kernel_axes)
    return 2 * depth * math.prod(out)
  batch, features, *out_axes = numbers.out_spec
  pairs = math.prod(
    _pairs(out[o], kernel[k], image[i], *how)
    for o, k, i, *how in zip(
      out_axes,
      kernel_axes,
      numbers.lhs_spec[2:],
      params["window_strides"],
      params["rhs_dilation"],
      params["lhs_dilation"],
      (low for low, _ in params["padding"]),
      strict=True,
    )
  )
  return 2 * depth * out[batch] * out[features] * pairs


def _pairs(
  out: int,
  kernel: int,
  image: int,
  stride: int,
  spread: int,
  holes: int,
  low: int,
) -> int:
  """(place of the output, place of the kernel) that meet a pixel, of an axis.

  Args:
    out: length of the output.
    kernel: length of the kernel.
    image: length of the input.
    stride: of the kernel.
    spread: dilation of the kernel.
    holes: dilation of the image.
    low: padding in front of it.
  """
  places = np.arange(out)[:, None] * stride + np.arange(kernel) * spread - low
  last = (image - 1) * holes
  inside = (places >= 0) & (places <= last) & (places % holes == 0)
  return int(inside.sum())


def _inner(values: Iterable[Any]) -> Iterator[core.Jaxpr]:
  for value in values:
    for part in value if isinstance(value, tuple) else (value,):
      if isinstance(part, core.ClosedJaxpr):
        yield part.jaxpr
      elif isinstance(part, core.Jaxpr):
        yield part
