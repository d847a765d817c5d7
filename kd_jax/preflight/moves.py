"""Copies and transposes of a compiled program that do nothing else."""

from __future__ import annotations

import collections
import dataclasses

from kd_jax.preflight import hlo

_MOVES = ("copy", "transpose")
# What a fusion may hold beside, and still only move its input.
_IDLE = ("parameter", "bitcast", "constant", "tuple", *_MOVES)


@dataclasses.dataclass(frozen=True)
class Moves:
  """Arrays that are rewritten in another layout.

  Prefetches into a chip's fast memory (copy-start) are none.

  Attributes:
    count: how many run in a step.
    bytes: of all of them, per chip.
    largest: ((operation of the JAX program, bytes), ...), largest first.
  """

  count: int
  bytes: int
  largest: tuple[tuple[str, int], ...]


def find(program: hlo.Program, *, most: int = 5) -> Moves:
  """The moves of a program, with at most so many of the largest by name."""
  count, total = 0, 0
  names: collections.Counter[str] = collections.Counter()
  for each, times in program.runs():
    if not _only_moves(each, program):
      continue
    size = times * hlo.size(each.shape)
    count, total = count + times, total + size
    names[each.source or each.name] += size
  return Moves(count, total, tuple(names.most_common(most)))


def _only_moves(each: hlo.Instruction, program: hlo.Program) -> bool:
  if each.opcode in _MOVES:
    return True
  if each.opcode != "fusion":
    return False
  inner = [
    x.opcode for name in each.called for x in program.computations.get(name, ())
  ]
  return set(inner) <= {*_IDLE} and any(x in _MOVES for x in inner)
