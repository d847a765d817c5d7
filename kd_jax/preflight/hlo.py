"""Reads the text of a compiled program: what runs, and how often."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*)$")
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(
  r"(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_BITS = {"pred": 8, "token": 0, "opaque": 0}


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name: without its '%'.
    shape: of the result, as written, with layouts.
    opcode: such as 'all-reduce-start'.
    rest: operands and attributes, as written.
  """

  name: str
  shape: str
  opcode: str
  rest: str

  @property
  def source(self) -> str:
    """The operation of the JAX program that it stems from; '' if unknown."""
    found = _OP_NAME.search(self.rest)
    return found.group(1) if found else ""

  @property
  def trips(self) -> int:
    """How often the body of a loop runs; 1 where the compiler did not tell."""
    found = _TRIPS.search(self.rest)
    return int(found.group(1)) if found else 1

  @property
  def called(self) -> list[str]:
    """Computations that it runs; not the condition of a loop."""
    found = _CALLED.findall(self.rest)
    for text in _BRANCHES.findall(self.rest):
      found += [name.strip().lstrip("%") for name in text.split(",")]
    return found


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled program.

  Attributes:
    computations: {name: its instructions}.
    entry: the one that runs.
  """

  computations: Mapping[str, tuple[Instruction, ...]]
  entry: str

  def runs(self, *, fused: bool = False) -> Iterator[tuple[Instruction, int]]:
    """(instruction, how often it runs), with the bodies of loops and calls.

    Args:
      fused: also what is inside of fusions.
    """
    yield from self._of(self.entry, 1, fused)

  def _of(
    self, name: str, times: int, fused: bool
  ) -> Iterator[tuple[Instruction, int]]:
    for each in self.computations.get(name, ()):
      yield each, times
      if each.opcode == "fusion" and not fused:
        continue
      again = times * each.trips if each.opcode == "while" else times
      for inner in each.called:
        yield from self._of(inner, again, fused)


def parse(text: str) -> Program:
  """The program of `compiled.as_text()`.

  Raises:
    ValueError: it has no entry.
  """
  found: dict[str, list[Instruction]] = collections.defaultdict(list)
  entry = current = ""
  for line in text.splitlines():
    head = _HEAD.match(line)
    if head:
      current = head.group(2)
      entry = current if head.group(1) else entry
      continue
    row = _LINE.match(line)
    if row and current:
      found[current].append(_instruction(row.group(1), row.group(2)))
  if not entry:
    raise ValueError("the compiled program has no ENTRY computation")
  return Program({k: tuple(v) for k, v in found.items()}, entry)


def _instruction(name: str, text: str) -> Instruction:
  shape = text[: _shape_end(text)]
  opcode, _, rest = text[len(shape) :].lstrip().partition("(")
  return Instruction(name, shape, opcode, rest)


def _shape_end(text: str) -> int:
  """Where a shape ends: at the first space outside of brackets."""
  depth = 0
  for i, letter in enumerate(text):
    depth += (letter in "({[") - (letter in ")}]")
    if letter == " " and not depth:
      return i
  return len(text)


def cycles(program: Program) -> int:
  """What the compiler expects all instructions to take, in the chip's cycles.

  0 where it notes nothing, as on CPUs.
  """
  found = ((_CYCLES.search(x.rest), times) for x, times in program.runs())
  return sum(times * int(each.group(1)) for each, times in found if each)


def parts(shape: str) -> list[str]:
  """The elements of a tuple; the shape itself if it is none."""
  if not shape.startswith("("):
    return [shape]
  depth, found, start = 0, [], 1
  for i, letter in enumerate(shape):
    depth += (letter in "({[") - (letter in ")}]")
    if (letter == "," and depth == 1) or (letter == ")" and not depth):
      found.append(shape[start:i].strip())
      start = i + 1
  return found


def size(shape: str) -> int:
  """Bytes of all arrays in a shape, without the padding of tiles."""
  # Comments and layouts hold brackets of their own.
  plain = re.sub(r"/\*.*?\*/|\{[^}]*\}", "", shape)
  return sum(
    math.prod(int(n) for n in dims.split(",") if n) * _bits(kind) // 8
    for kind, dims in _ARRAY.findall(plain)
  )


def _bits(kind: str) -> int:
  """Of one element: 'bf16' has 16, 'f8e4m3fn' 8."""
  if kind in _BITS:
    return _BITS[kind]
  digits = re.search(r"\d+", kind)
  return int(digits.group()) if digits else 0
