"""Operations that add up: products, convolutions, windows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kd_jax.convert.onnx_graph.elementwise import Rule
from kd_jax.convert.onnx_graph.graph import Graph, Shape, Tensor, Value, size

Axes = Sequence[int]


def _reduce(operator: str) -> Rule:
  def rule(
    graph: Graph, x: Tensor, *, axes: Axes, out: Any, **unused: Any
  ) -> Tensor:
    del unused
    where = np.asarray([int(a) for a in axes], np.int64)
    given = (x, where)
    return graph.add(operator, given, out.shape, out.dtype, keepdims=0)

  return rule


def _ordered(graph: Graph, x: Value, order: Axes, shape: Shape) -> Value:
  """Axes in another order, then other sides."""
  if isinstance(x, np.ndarray):
    return np.ascontiguousarray(x.transpose(order).reshape(shape))
  return graph.reshape(graph.transpose(x, order), shape)


def _dot(
  graph: Graph,
  left: Value,
  right: Value,
  *,
  dimension_numbers: tuple[tuple[Axes, Axes], tuple[Axes, Axes]],
  out: Any,
  **unused: Any,
) -> Tensor:
  """(batch, m, k) x (batch, k, n), after the axes are in that order."""
  del unused
  (sums_l, sums_r), (batch_l, batch_r) = dimension_numbers
  free_l = _rest(left, sums_l, batch_l)
  free_r = _rest(right, sums_r, batch_r)
  if not batch_l and isinstance(left, np.ndarray):
    # Images come first: (rest, k) x (k, m), and then m in front.
    numbers = ((sums_r, sums_l), ((), ()))
    turned = _weighted(graph, right, left, numbers)
    n = len(free_r)
    order = [*range(n, n + len(free_l)), *range(n)]
    return graph.transpose(turned, order)
  if not batch_l:
    return _weighted(graph, left, right, dimension_numbers)
  batch = _sides(left, batch_l)
  m, n = size(_sides(left, free_l)), size(_sides(right, free_r))
  k = size(_sides(left, sums_l))
  order_l, order_r = [*batch_l, *free_l, *sums_l], [*batch_r, *sums_r, *free_r]
  a = _ordered(graph, left, order_l, (*batch, m, k))
  b = _ordered(graph, right, order_r, (*batch, k, n))
  y = graph.add("MatMul", (a, b), (*batch, m, n), out.dtype)
  return graph.reshape(y, out.shape)


def _weighted(
  graph: Graph,
  x: Value,
  weights: Value,
  numbers: tuple[tuple[Axes, Axes], tuple[Axes, Axes]],
) -> Tensor:
  """(any, k) x (k, n); the images are in `x`."""
  (sums_x, sums_w), _ = numbers
  free_x, free_w = _rest(x, sums_x), _rest(weights, sums_w)
  sides, more = _sides(x, free_x), _sides(weights, free_w)
  k, n = size(_sides(x, sums_x)), size(more)
  a = _ordered(graph, x, [*free_x, *sums_x], (*sides, k))
  b = _ordered(graph, weights, [*sums_w, *free_w], (k, n))
  y = graph.add("MatMul", (a, b), (*sides, n), x.dtype)
  return graph.reshape(y, (*sides, *more))


def _rest(x: Value, *taken: Axes) -> list[int]:
  gone = {int(a) for axes in taken for a in axes}
  return [i for i in range(len(x.shape)) if i not in gone]


def _sides(x: Value, axes: Axes) -> Shape:
  return tuple(x.shape[i] for i in axes)


def _conv(
  graph: Graph, x: Tensor, kernel: Value, *, out: Any, **params: Any
) -> Tensor:
  padding = params["padding"]
  if params["batch_group_count"] != 1 or set(params["lhs_dilation"]) != {1}:
    raise NotImplementedError("a transposed convolution")
  if min(min(pair) for pair in padding) < 0:
    raise NotImplementedError("negative padding")
  spec = params["dimension_numbers"]
  a = graph.transpose(x, spec.lhs_spec)
  shape = tuple(kernel.shape[i] for i in spec.rhs_spec)
  b = _ordered(graph, kernel, spec.rhs_spec, shape)
  y = graph.add(
    "Conv",
    (a, b),
    tuple(out.shape[i] for i in spec.out_spec),
    out.dtype,
    strides=list(params["window_strides"]),
    pads=[p for p, _ in padding] + [p for _, p in padding],
    dilations=list(params["rhs_dilation"]),
    group=params["feature_group_count"],
  )
  return graph.transpose(y, np.argsort(spec.out_spec).tolist())


def _window(operator: str) -> Rule:
  def rule(graph: Graph, x: Tensor, *, out: Any, **params: Any) -> Tensor:
    if set(params["base_dilation"]) != {1}:
      raise NotImplementedError("windows over spread numbers")
    known = [
      _Window(int(length), int(stride), tuple(map(int, pads)), int(dilation))
      for length, stride, pads, dilation in zip(
        params["window_dimensions"],
        params["window_strides"],
        params["padding"],
        params["window_dilation"],
        strict=True,
      )
    ]
    inside = [i for i, k in enumerate(known) if k[:3] != (1, 1, (0, 0))]
    rest = [i for i in range(len(known)) if i not in inside]
    order = [*rest, *inside]
    front = (x.shape[rest[0]], size(_sides(x, rest[1:])))
    y = graph.transpose(x, order)
    y = graph.reshape(y, (*front, *_sides(x, inside)))
    sides = tuple(out.shape[i] for i in inside)
    y = _pooled(graph, y, operator, [known[i] for i in inside], sides)
    y = graph.reshape(y, tuple(out.shape[i] for i in order))
    return graph.transpose(y, np.argsort(order).tolist())

  return rule


class _Window(NamedTuple):
  """Along one axis."""

  size: int
  stride: int
  pads: tuple[int, ...]
  dilation: int


def _pooled(
  graph: Graph,
  x: Tensor,
  operator: str,
  windows: Sequence[_Window],
  sides: Shape,
) -> Tensor:
  """Over the last axes; of sums, the mean and then their number."""
  kernel = [w.size for w in windows]
  mean = {"count_include_pad": 1} if operator == "AveragePool" else {}
  y = graph.add(
    operator,
    (x,),
    (*x.shape[:2], *sides),
    x.dtype,
    kernel_shape=kernel,
    strides=[w.stride for w in windows],
    pads=[w.pads[0] for w in windows] + [w.pads[1] for w in windows],
    dilations=[w.dilation for w in windows],
    **mean,
  )
  if not mean:
    return y
  count = np.asarray(math.prod(kernel), x.dtype)
  return graph.add("Mul", (y, count), y.shape, y.dtype)


RULES: Mapping[str, Rule] = {
  "conv_general_dilated": _conv,
  "dot_general": _dot,
  "reduce_max": _reduce("ReduceMax"),
  "reduce_min": _reduce("ReduceMin"),
  "reduce_sum": _reduce("ReduceSum"),
  "reduce_window_max": _window("MaxPool"),
  "reduce_window_sum": _window("AveragePool"),
}
