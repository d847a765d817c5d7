"""Operations that treat every number on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kd_jax.convert.onnx_graph.graph import Graph, Shape, Tensor, Value

Rule = Callable[..., Any]
"""(graph, *inputs, out=shapes and dtypes in JAX, **parameters) -> values."""

_SAME = {
  "abs": "Abs",
  "add": "Add",
  "add_any": "Add",
  "and": "And",
  "ceil": "Ceil",
  "copy": "Identity",
  "copy_p": "Identity",
  "cos": "Cos",
  "div": "Div",
  "eq": "Equal",
  "erf": "Erf",
  "exp": "Exp",
  "floor": "Floor",
  "ge": "GreaterOrEqual",
  "gt": "Greater",
  "le": "LessOrEqual",
  "log": "Log",
  "logistic": "Sigmoid",
  "lt": "Less",
  "max": "Max",
  "min": "Min",
  "mul": "Mul",
  "neg": "Neg",
  "not": "Not",
  "or": "Or",
  "pow": "Pow",
  "reduce_precision": "Identity",
  "round": "Round",
  "sign": "Sign",
  "sin": "Sin",
  "sqrt": "Sqrt",
  "stop_gradient": "Identity",
  "sub": "Sub",
  "tanh": "Tanh",
}


def _plain(operator: str) -> Rule:
  def rule(graph: Graph, *inputs: Value, out: Any, **unused: Any) -> Tensor:
    del unused
    return graph.add(operator, inputs, common(*inputs), out.dtype)

  return rule


def common(*inputs: Value) -> Shape:
  """The shape that sides of 1 are stretched to; all have the same rank."""
  sides = zip(*(_padded(x.shape, inputs) for x in inputs), strict=True)
  return tuple(next((d for d in side if d != 1), 1) for side in sides)


def _padded(shape: Shape, inputs: tuple[Value, ...]) -> Shape:
  rank = max(len(x.shape) for x in inputs)
  return (1,) * (rank - len(shape)) + tuple(shape)


def _number(value: float, like: Value) -> np.ndarray:
  return np.asarray(value, like.dtype)


def _square(graph: Graph, x: Tensor, *, out: Any) -> Tensor:
  return graph.add("Mul", (x, x), x.shape, out.dtype)


def _rsqrt(graph: Graph, x: Tensor, *, out: Any, **unused: Any) -> Tensor:
  del unused
  root = graph.add("Sqrt", (x,), x.shape, out.dtype)
  return graph.add("Reciprocal", (root,), x.shape, out.dtype)


def _erfc(graph: Graph, x: Tensor, *, out: Any) -> Tensor:
  y = graph.add("Erf", (x,), x.shape, out.dtype)
  return graph.add("Sub", (_number(1, x), y), x.shape, out.dtype)


def _power(graph: Graph, x: Tensor, *, y: int, out: Any) -> Tensor:
  return graph.add("Pow", (x, _number(y, x)), x.shape, out.dtype)


def _unequal(graph: Graph, x: Value, y: Value, *, out: Any) -> Tensor:
  same = graph.add("Equal", (x, y), common(x, y), out.dtype)
  return graph.add("Not", (same,), same.shape, out.dtype)


def _select(graph: Graph, which: Value, *cases: Value, out: Any) -> Tensor:
  if len(cases) != 2 or which.dtype != bool:
    raise NotImplementedError("select_n of more than two")
  no, yes = cases
  shape = common(which, no, yes)
  return graph.add("Where", (which, yes, no), shape, out.dtype)


def _clamp(graph: Graph, low: Value, x: Value, high: Value, *, out: Any):
  """Bounds may be tensors, which Clip does not allow."""
  y = graph.add("Max", (low, x), common(low, x), out.dtype)
  return graph.add("Min", (y, high), common(y, high), out.dtype)


def _cast(graph: Graph, x: Tensor, *, out: Any, **unused: Any) -> Tensor:
  import onnx

  del unused
  to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(out.dtype))
  return graph.add("Cast", (x,), x.shape, out.dtype, to=to)


KNOWN: Mapping[str, Callable[..., np.ndarray]] = {
  "add": np.add,
  "convert_element_type": np.asarray,
  "copy": np.asarray,
  "div": np.divide,
  "exp": np.exp,
  "mul": np.multiply,
  "neg": np.negative,
  "rsqrt": lambda x: 1 / np.sqrt(x),
  "sqrt": np.sqrt,
  "square": np.square,
  "stop_gradient": np.asarray,
  "sub": np.subtract,
}
"""Of known numbers, without what JAX needs to compile each of them."""

RULES: Mapping[str, Rule] = {
  **{name: _plain(operator) for name, operator in _SAME.items()},
  "clamp": _clamp,
  "convert_element_type": _cast,
  "erfc": _erfc,
  "integer_pow": _power,
  "ne": _unequal,
  "rsqrt": _rsqrt,
  "select_n": _select,
  "square": _square,
}
