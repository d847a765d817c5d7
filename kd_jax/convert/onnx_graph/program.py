"""A network and its weights as one ONNX model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jaxtyping import Array, Float

from kd_jax.convert.onnx_graph import elementwise, shapes, sums
from kd_jax.convert.onnx_graph.graph import Graph, Tensor, Value

OPSET = 20
"""Of ONNX 1.15, November 2023."""

_IR = 9
_LARGE = 1_500_000_000
_RULES = {**elementwise.RULES, **shapes.RULES, **sums.RULES}
_INSIDE = ("jaxpr", "call_jaxpr", "fun_jaxpr")
# These stretch sides of 1 on their own, or do not look at them.
_LAZY = {*elementwise.RULES, "broadcast_in_dim"}

Outputs = Mapping[str, Array]


def save(
  function: Callable[[Float[Array, "h w 3"]], Outputs],
  size: int,
  path: Path,
) -> None:
  """Writes a function of any number of images, `images` -> names.

  Args:
    function: of one image; weights are inside.
    size: height and width of the images, in pixels.
    path: of the file; with more than 1.5 GB of weights, they are in a second
      file beside it, `path` with '.data' behind.

  Raises:
    ValueError: the package onnx is not there, or an operation has no
      counterpart.
  """
  try:
    import onnx
  except ImportError as error:
    raise ValueError(
      "the format onnx is written with the package onnx, which is not there: "
      'pip install "kd_jax[onnx]"'
    ) from error
  graph, names, avals = _graph(function, size)
  info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
  outputs = [
    info(name, kind, ["n", *aval.shape[1:]])
    for name, aval in zip(names, avals, strict=True)
  ]
  inputs = [info("images", kind, ["n", size, size, 3])]
  body = onnx.helper.make_graph(
    graph.nodes, "kd_jax", inputs, outputs, graph.initializers
  )
  opset = [onnx.helper.make_opsetid("", OPSET)]
  model = onnx.helper.make_model(
    body, opset_imports=opset, ir_version=_IR, producer_name="kd_jax"
  )
  bytes_of_weights = sum(len(t.raw_data) for t in graph.initializers)
  path.parent.mkdir(parents=True, exist_ok=True)
  onnx.save_model(
    model,
    str(path),
    save_as_external_data=bytes_of_weights > _LARGE,
    location=path.name + ".data",
  )


def _graph(
  function: Callable[[Float[Array, "h w 3"]], Outputs], size: int
) -> tuple[Graph, list[str], list[Any]]:
  """The graph with its outputs, their names, and their shapes in JAX."""
  (n,) = export.symbolic_shape("n")
  images = jax.ShapeDtypeStruct((n, size, size, 3), np.float32)
  traced = jax.jit(jax.vmap(function)).trace(images)
  found = jax.tree_util.tree_flatten_with_path(traced.out_info)[0]
  names = [path[0].key for path, _ in found]
  graph, closed = Graph(), traced.jaxpr
  given = Tensor("images", images.shape, np.dtype(np.float32))
  values = _run(graph, closed.jaxpr, closed.consts, [given])
  avals = [v.aval for v in closed.jaxpr.outvars]
  for name, value, aval in zip(names, values, avals, strict=True):
    graph.call(name, _whole(graph, value, aval))
  return graph, names, avals


def _run(
  graph: Graph, jaxpr: Any, consts: Sequence[Any], given: Sequence[Value]
) -> list[Value]:
  """The values of the outputs of a trace."""
  known: dict[Any, Value] = {}
  arrays = [np.asarray(c) for c in consts]
  known.update(zip(jaxpr.constvars, arrays, strict=True))
  known.update(zip(jaxpr.invars, given, strict=True))

  def read(atom: Any) -> Value:
    literal = hasattr(atom, "val")
    return np.asarray(atom.val, atom.aval.dtype) if literal else known[atom]

  for equation in jaxpr.eqns:
    inputs = [read(atom) for atom in equation.invars]
    found = _step(graph, equation, inputs)
    known.update(zip(equation.outvars, found, strict=True))
  return [read(atom) for atom in jaxpr.outvars]


def _step(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
  """The outputs of one operation."""
  name, params = equation.primitive.name, equation.params
  if name == "platform_index":
    # The last form is that of all other platforms.
    return [np.asarray(len(params["platforms"]) - 1, np.int32)]
  if name == "cond" and isinstance(inputs[0], np.ndarray):
    branch = params["branches"][int(inputs[0])]
    return _run(graph, branch.jaxpr, branch.consts, inputs[1:])
  for field in _INSIDE:
    if field in params:
      inner = params[field]
      return _run(
        graph,
        getattr(inner, "jaxpr", inner),
        getattr(inner, "consts", ()),
        inputs,
      )
  known = [x for x in inputs if isinstance(x, np.ndarray)]
  lazy = name == "broadcast_in_dim" or not _fixed(equation)
  if len(known) == len(inputs) and not lazy:
    return _computed(equation, known)
  return _written(graph, equation, inputs)


def _fixed(equation: Any) -> bool:
  """Whether the outputs do not depend on the number of images."""
  shapes = (v.aval.shape for v in equation.outvars)
  return all(isinstance(d, int) for shape in shapes for d in shape)


def _computed(equation: Any, inputs: list[np.ndarray]) -> list[Value]:
  name, first = equation.primitive.name, equation.outvars[0].aval
  if name in elementwise.KNOWN and first.dtype == np.float32:
    y = elementwise.KNOWN[name](*inputs)
    return [np.asarray(y, first.dtype)]
  if name in ("reshape", "squeeze", "transpose"):
    (x,) = inputs
    x = np.broadcast_to(x, equation.invars[0].aval.shape)
    y = x.transpose(equation.params.get("permutation"))
    return [(y if name == "transpose" else x).reshape(first.shape)]
  with jax.ensure_compile_time_eval():
    whole = [
      np.broadcast_to(x, v.aval.shape)
      for x, v in zip(inputs, equation.invars, strict=True)
    ]
    found = equation.primitive.bind(*whole, **equation.params)
  several = found if equation.primitive.multiple_results else [found]
  return [np.asarray(value) for value in several]


def _written(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
  name = equation.primitive.name
  outs = [v.aval for v in equation.outvars]
  if name not in _LAZY:
    inputs = [
      _whole(graph, x, v.aval)
      for x, v in zip(inputs, equation.invars, strict=True)
    ]
  out = outs if equation.primitive.multiple_results else outs[0]
  try:
    found = _RULES[name](graph, *inputs, **equation.params, out=out)
  except (KeyError, NotImplementedError) as error:
    raise ValueError(
      f"this network has an operation that ONNX is not written with ({name}: "
      f"{error}); StableHLO has it: leave --format out"
    ) from error
  return found if equation.primitive.multiple_results else [found]


def _whole(graph: Graph, x: Value, aval: Any) -> Value:
  """With the sides that JAX has."""
  shape = tuple(aval.shape)
  if tuple(x.shape) == shape:
    return x
  if isinstance(x, Tensor):
    return graph.expand(x, shape)
  if all(isinstance(d, int) for d in shape):
    return np.broadcast_to(x, shape)
  return graph.expand(graph.add("Identity", (x,), x.shape, x.dtype), shape)
