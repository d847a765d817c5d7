"""Operations that move numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kd_jax.convert.onnx_graph.elementwise import Rule
from kd_jax.convert.onnx_graph.graph import Dim, Graph, Tensor, Value

_END = np.iinfo(np.int64).max


def _integers(values: Sequence[Any]) -> np.ndarray:
  return np.asarray([int(v) for v in values], np.int64)


def _broadcast(
  graph: Graph,
  x: Value,
  *,
  broadcast_dimensions: Sequence[int],
  out: Any,
  **unused: Any,
) -> Value:
  """Only the rank; operations stretch sides of 1 themselves."""
  del unused
  shape: list[Dim] = [1] * len(out.shape)
  for axis, dim in zip(broadcast_dimensions, x.shape, strict=True):
    shape[axis] = dim
  if isinstance(x, np.ndarray):
    return x.reshape(shape)
  return graph.reshape(x, tuple(shape))


def _reshape(graph: Graph, x: Tensor, *, out: Any, **unused: Any) -> Tensor:
  del unused
  return graph.reshape(x, out.shape)


def _transpose(
  graph: Graph, x: Tensor, *, permutation: Sequence[int], out: Any
) -> Tensor:
  del out
  return graph.transpose(x, [int(i) for i in permutation])


def _concatenate(
  graph: Graph, *inputs: Value, dimension: int, out: Any
) -> Tensor:
  return graph.add("Concat", inputs, out.shape, out.dtype, axis=dimension)


def _stack(graph: Graph, *inputs: Value, axis: int, out: Any) -> Tensor:
  one = (*out.shape[:axis], 1, *out.shape[axis + 1 :])
  parts = [
    np.expand_dims(x, axis)
    if isinstance(x, np.ndarray)
    else graph.reshape(x, one)
    for x in inputs
  ]
  return graph.add("Concat", parts, out.shape, out.dtype, axis=axis)


def _slice(
  graph: Graph,
  x: Tensor,
  *,
  start_indices: Sequence[int],
  limit_indices: Sequence[Dim],
  strides: Sequence[int] | None,
  out: Any,
) -> Tensor:
  steps = strides or (1,) * len(x.shape)
  axes = [
    i
    for i, dim in enumerate(x.shape)
    if isinstance(dim, int)
    and (start_indices[i], limit_indices[i], steps[i]) != (0, dim, 1)
  ]
  return graph.add(
    "Slice",
    (
      x,
      _integers([start_indices[i] for i in axes]),
      _integers([limit_indices[i] for i in axes]),
      _integers(axes),
      _integers([steps[i] for i in axes]),
    ),
    out.shape,
    out.dtype,
  )


def _reverse(
  graph: Graph, x: Tensor, *, dimensions: Sequence[int], out: Any
) -> Tensor:
  n = len(dimensions)
  ends = _integers([-_END] * n)
  where = (_integers([-1] * n), ends, _integers(dimensions))
  steps = _integers([-1] * n)
  return graph.add("Slice", (x, *where, steps), out.shape, out.dtype)


def _split(
  graph: Graph, x: Tensor, *, sizes: Sequence[int], axis: int, out: Any
) -> list[Tensor]:
  """One slice per part."""
  parts, start = [], 0
  for piece, n in zip(out, sizes, strict=True):
    where = (_integers([start]), _integers([start + n]), _integers([axis]))
    parts.append(graph.add("Slice", (x, *where), piece.shape, piece.dtype))
    start += n
  return parts


def _pad(
  graph: Graph,
  x: Tensor,
  value: Value,
  *,
  padding_config: Sequence[tuple[int, int, int]],
  out: Any,
) -> Tensor:
  low, high, inside = zip(*padding_config, strict=True)
  if any(inside):
    raise NotImplementedError("padding between the numbers")
  pads = _integers([*low, *high])  # negative ones cut
  return graph.add("Pad", (x, pads, value), out.shape, out.dtype)


def _tile(graph: Graph, x: Tensor, *, reps: Sequence[int], out: Any) -> Tensor:
  return graph.add("Tile", (x, _integers(reps)), out.shape, out.dtype)


RULES: Mapping[str, Rule] = {
  "broadcast_in_dim": _broadcast,
  "concatenate": _concatenate,
  "expand_dims": _reshape,
  "pad": _pad,
  "reshape": _reshape,
  "rev": _reverse,
  "slice": _slice,
  "split": _split,
  "squeeze": _reshape,
  "stack": _stack,
  "tile": _tile,
  "transpose": _transpose,
}
