"""Compiles lowered steps, and says what each takes of a chip."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any

import jax

from kd_jax.preflight import collectives, hlo, moves, operations
from kd_jax.preflight.lowering import Lowered
from kd_jax.preflight.topologies import Topology

# 'memory required for HLO temporaries (17.81G) exceeds', 'Used 17.8G of'
_NEEDS = re.compile(r"(?:Used |\()([\d.]+)([KMGT]?)\)? (?:of|exceeds)", re.I)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_FULL = "RESOURCE_EXHAUSTED"
# Whose an argument of the step is, by the beginning of its name.
_OWNERS = (
  ("state.params['student']", "student"),
  ("state.stats['student']", "student"),
  ("state.params['method']", "projectors"),
  ("state.stats['method']", "projectors"),
  ("state.ema", "kept"),
  ("state.best", "kept"),
  ("state.", "optimizer"),
  ("frozen", "teacher"),
  ("batch", "batch"),
)


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on a chip while a step runs.

  Attributes:
    student, projectors, optimizer, kept, teacher, batch: what goes in, as far
      as the step reads it; kept are the moving average and best weights;
      projectors what the method trains itself; statistics included.
    padding: that the layout of what goes in adds.
    outputs: what comes out, beside what takes the place of the input.
    temporaries: activations, gradients and work space.
    code: the program.
  """

  student: int
  projectors: int
  optimizer: int
  kept: int
  teacher: int
  batch: int
  padding: int
  outputs: int
  temporaries: int
  code: int

  @property
  def total(self) -> int:
    """Of everything."""
    return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class Step:
  """What the step of a phase takes, of a chip.

  Attributes:
    phase: its name, or those of several that compute the same.
    steps: that it lasts.
    fits: whether the compiler finds room for it.
    needs: bytes on a chip, by the compiler. If it does not fit, at least so
      many, for the compiler stops counting; 0 if it does not say.
    memory: the same in parts; None if it does not fit.
    flops: operations by the compiler, see `_again`; 0 if it does not fit.
    counted: the same by `operations.count`, with those of every element.
    bytes: read and written in the chip's memory, by the compiler.
    collectives: by kind.
    moves: copies and transposes; None if it does not fit.
    cycles: that the compiler expects its own code to take, without waiting for
      other chips; 0 if it does not say.
    compile_seconds: on this machine.
  """

  phase: str
  steps: int
  fits: bool
  needs: int
  memory: Memory | None
  flops: float
  counted: float
  bytes: float
  collectives: tuple[collectives.Sum, ...]
  moves: moves.Moves | None
  cycles: int
  compile_seconds: float


def step(lowered: Lowered, topology: Topology) -> Step:
  """Compiles a step.

  Raises:
    ValueError: the compiler refuses it for another reason than its size.
  """
  jaxpr = operations.needed(lowered.traced.jaxpr.jaxpr)
  counted = operations.count(jaxpr, elements=True) / topology.chips
  start = time.monotonic()
  try:
    compiled = lowered.traced.lower().compile()
  except jax.errors.JaxRuntimeError as error:
    return _refused(lowered, counted, error, time.monotonic() - start)
  seconds = time.monotonic() - start
  program = hlo.parse(compiled.as_text() or "")
  memory = _memory(program, compiled.memory_analysis())
  cost = compiled.cost_analysis() or {}
  again = _again(lowered)
  return Step(
    phase=lowered.name,
    steps=lowered.steps,
    fits=memory.total <= topology.chip.usable_bytes,
    needs=memory.total,
    memory=memory,
    flops=again * float(cost.get("flops", 0.0)),
    counted=counted,
    bytes=again * float(cost.get("bytes accessed", 0.0)),
    collectives=tuple(collectives.sums(collectives.find(program), topology)),
    moves=moves.find(program),
    cycles=hlo.cycles(program),
    compile_seconds=seconds,
  )


def _again(lowered: Lowered) -> float:
  """How often the compiler's operations and bytes happen.

  It counts loops once. Microbatches are nearly all of a step that has any, so
  everything is taken to happen as often as its products do.
  """
  jaxpr = operations.needed(lowered.traced.jaxpr.jaxpr)
  once = operations.count(jaxpr, turns=False)
  return operations.count(jaxpr) / once if once else 1.0


def _refused(
  lowered: Lowered,
  counted: float,
  error: RuntimeError,
  seconds: float,
) -> Step:
  """A step that is too large; any other refusal is an error."""
  text = str(error)
  if _FULL not in text:
    first = text.splitlines()[0]
    raise ValueError(
      f"the compiler refuses phase {lowered.name!r}: {first}. Change the "
      "batch, or name another --config.topology."
    ) from error
  return Step(
    phase=lowered.name,
    steps=lowered.steps,
    fits=False,
    needs=needed(text),
    memory=None,
    flops=0.0,
    counted=counted,
    bytes=0.0,
    collectives=(),
    moves=None,
    cycles=0,
    compile_seconds=seconds,
  )


def needed(text: str) -> int:
  """Bytes that a program wants, by the refusal of the compiler; 0 if silent."""
  found = _NEEDS.search(text)
  if not found:
    return 0
  return round(float(found.group(1)) * _UNITS[found.group(2).upper()])


def _memory(program: hlo.Program, found: Any) -> Memory:
  """The compiler's figures, with the input split by owner."""
  owned = dict.fromkeys(dict(_OWNERS).values(), 0)
  for each in program.computations[program.entry]:
    if each.opcode == "parameter":
      owned[_owner(each.source)] += hlo.size(each.shape)
  return Memory(
    **owned,
    padding=found.argument_size_in_bytes - sum(owned.values()),
    outputs=found.output_size_in_bytes - found.alias_size_in_bytes,
    temporaries=found.temp_size_in_bytes,
    code=found.generated_code_size_in_bytes,
  )


def _owner(source: str) -> str:
  """Of an argument of the step, such as "state.params['student'][...]"."""
  plain = source.replace("\\", "")
  return next(owner for start, owner in _OWNERS if plain.startswith(start))


def as_json(found: Step) -> Mapping[str, Any]:
  """A step as JSON values."""
  plain = dataclasses.asdict(found)
  if found.moves is not None:
    plain["moves"]["largest"] = [list(x) for x in found.moves.largest]
  return plain
