"""The graph that is written: nodes, constants, and shapes that are not known.

Shapes are those of JAX's trace, in which the number of images is a symbol.
Needs the package onnx (`pip install "kd_jax[onnx]"`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Dim = Any
"""An integer, or JAX's expression in the number of images."""

Shape = tuple[Dim, ...]


@dataclasses.dataclass(frozen=True)
class Tensor:
  """What a node of the graph yields.

  Attributes:
    name: in the graph.
    shape: as in the graph; a side of 1 stands for any that JAX has there.
    dtype: NumPy's.
  """

  name: str
  shape: Shape
  dtype: np.dtype[Any]


Value = Tensor | np.ndarray
"""In the graph, or known."""


@dataclasses.dataclass
class Graph:
  """Grows while the trace is read.

  Attributes:
    nodes: onnx.NodeProto, in order.
    initializers: onnx.TensorProto.
  """

  nodes: list[Any] = dataclasses.field(default_factory=list)
  initializers: list[Any] = dataclasses.field(default_factory=list)
  _names: dict[int, tuple[np.ndarray, str]] = dataclasses.field(
    default_factory=dict
  )
  _batch: str = ""

  def add(
    self,
    operator: str,
    inputs: Sequence[Value],
    shape: Shape,
    dtype: Any,
    **attributes: Any,
  ) -> Tensor:
    """A node with one output.

    Args:
      operator: of ONNX.
      inputs: known ones become constants.
      shape: of the output.
      dtype: of the output.
      **attributes: of the operator.
    """
    import onnx

    name = f"v{len(self.nodes)}"
    names = [self.name(value) for value in inputs]
    node = onnx.helper.make_node(operator, names, [name], **attributes)
    self.nodes.append(node)
    return Tensor(name, tuple(shape), np.dtype(dtype))

  def call(self, name: str, value: Value) -> None:
    """Gives a value the name of an output."""
    import onnx

    node = onnx.helper.make_node("Identity", [self.name(value)], [name])
    self.nodes.append(node)

  def name(self, value: Value) -> str:
    """The name of a value; a constant is written once."""
    if isinstance(value, Tensor):
      return value.name
    if id(value) not in self._names:
      import onnx

      name = f"c{len(self.initializers)}"
      array = np.ascontiguousarray(value)
      self.initializers.append(onnx.numpy_helper.from_array(array, name))
      self._names[id(value)] = value, name  # kept: no other has its id
    return self._names[id(value)][1]

  def reshape(self, x: Tensor, shape: Shape) -> Tensor:
    """`x` with other sides; at most one of them may be unknown."""
    if x.shape == tuple(shape):
      return x
    unknown = [d for d in shape if not isinstance(d, int)]
    if len(unknown) > 1:
      target: Value = self._sides(shape)
    else:
      sides = [d if isinstance(d, int) else -1 for d in shape]
      target = np.asarray(sides, np.int64)
    return self.add("Reshape", (x, target), shape, x.dtype)

  def transpose(self, x: Tensor, order: Sequence[int]) -> Tensor:
    """`x` with its axes in another order."""
    if list(order) == list(range(len(x.shape))):
      return x
    shape = tuple(x.shape[i] for i in order)
    return self.add("Transpose", (x,), shape, x.dtype, perm=list(order))

  def expand(self, x: Tensor, shape: Shape) -> Tensor:
    """`x` with its sides of 1 as long as JAX has them."""
    if x.shape == tuple(shape):
      return x
    return self.add("Expand", (x, self._sides(shape)), shape, x.dtype)

  def _sides(self, shape: Shape) -> Value:
    """A shape as the program knows it when it runs."""
    if all(isinstance(d, int) for d in shape):
      return np.asarray(shape, np.int64)
    sides = [self._side(d) for d in shape]
    return self.add("Concat", sides, (len(shape),), np.int64, axis=0)

  def _side(self, dim: Dim) -> Value:
    if isinstance(dim, int):
      return np.asarray([dim], np.int64)
    if not self._batch:
      images = Tensor("images", (), np.dtype(np.float32))
      shape = self.add("Shape", (images,), (4,), np.int64)
      first = np.asarray([0], np.int64)
      batch = self.add("Gather", (shape, first), (1,), np.int64)
      self._batch = batch.name
    factor, rest = divmod(_at(dim, 8), 8)
    if rest or _at(dim, 1) != factor:
      raise NotImplementedError(f"the side {dim}")
    batch = Tensor(self._batch, (1,), np.dtype(np.int64))
    times = np.asarray([factor], np.int64)
    return self.add("Mul", (batch, times), (1,), np.int64)


def _at(dim: Dim, images: int) -> int:
  """The side for so many images."""
  (name,) = dim._get_vars()
  return int(dim._evaluate({name: images}))


def size(shape: Shape) -> Dim:
  """The product of the sides."""
  return math.prod(shape)
