"""Where a program's time goes on a CPU, as XLA's own profiler counts it."""

from __future__ import annotations

import collections
import math
import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

_LINE = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (\([^)]*\)|\S+) ([\w\-]+)\(")
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")
_NAME = re.compile(r'op_name="([^"]*)"')
_CALLS = re.compile(r"calls=%?([\w.\-]+)")
_SPREAD = re.compile(r"lhs_dilate=(\d+)x(\d+)")
_LABELS = re.compile(r"dim_labels=\w+_(\w+)->(\w+)")
_CONTRACT = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
# They hold operations that are counted themselves.
_OUTER = {"while", "call", "conditional"}


class Operation(NamedTuple):
  """One instruction of a compiled program.

  Attributes:
    kind: 'convolution', 'product', 'reduction', 'window', 'elementwise', ...
    shape: of its result.
    where: the layers that it came from.
    flops: of convolutions and products; 0 of all others.
  """

  kind: str
  shape: str
  where: str
  flops: float


def listing(run: Callable[[], object], shown: int, runs: int = 5) -> str:
  """Runs under the profiler; kinds of work, then single operations.

  Args:
    run: calls compiled programs that ran before, and waits for them.
    shown: operations to list.
    runs: how often; the shortest time of every operation counts.
  """
  spent, turns, module = _spent(run)
  for _ in range(runs - 1):
    spent &= _spent(run)[0]
  known = _operations(module)
  kinds = collections.Counter()
  for name, milliseconds in spent.items():
    kinds[known[name].kind if name in known else "other"] += milliseconds
  lines = [f"{'ms':>8}  share  kind"]
  total = sum(spent.values())
  lines += [f"{t:8.1f}{t / total:7.2f}  {k}" for k, t in kinds.most_common()]
  lines += ["", f"{'ms':>8}  GFLOP/s  operation"]
  for name, t in spent.most_common(shown):
    kind, shape, where, flops = known.get(name, Operation(name, "", "", 0))
    rate = f"{flops * turns[name] / t / 1e6:9.0f}" if flops else " " * 9
    lines.append(f"{t:8.2f}{rate}  {kind} {shape} {where}")
  return "\n".join(lines)


def _spent(
  run: Callable[[], object],
) -> tuple[collections.Counter[str], collections.Counter[str], str]:
  """({operation: ms}, {operation: turns}, the module that took longest)."""
  times: dict[str, collections.Counter[str]] = {}
  turns: collections.Counter[str] = collections.Counter()
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      run()
    (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(file))
  events = (
    (event.duration_ns / 1e6, dict(event.stats))
    for plane in data.planes
    for line in plane.lines
    for event in line.events
  )
  for milliseconds, found in events:
    name = str(found.get("hlo_op", ""))
    if name and name.split(".")[0] not in _OUTER:
      of = times.setdefault(str(found["hlo_module"]), collections.Counter())
      of[name] += milliseconds
      turns[name] += 1
  name = max(times, key=lambda module: sum(times[module].values()))
  return times[name], turns, name


def _operations(module: str) -> dict[str, Operation]:
  """{name: operation} of the newest program of that name."""
  texts = [
    found.to_string()
    for program in jax.devices()[0].client.live_executables()
    for found in program.hlo_modules()
    if found.name == module
  ]
  computations, lines, shapes = {}, [], {}
  for line in texts[-1].splitlines():
    if line.endswith("{") and not line.startswith(" "):
      name = line.removeprefix("ENTRY ").split()[0].lstrip("%")
      lines = computations.setdefault(name, [])
    lines.append(line)
    if head := _LINE.match(line):
      shapes[head[1]] = _sizes(head[2])
  return {
    name: operation
    for lines in computations.values()
    for name, operation in _of(lines, computations, shapes)
  }


def _of(
  lines: list[str],
  computations: dict[str, list[str]],
  shapes: Mapping[str, list[int]],
) -> list[tuple[str, Operation]]:
  found = []
  for line in lines:
    head = _LINE.match(line)
    if head is None:
      continue
    name, shape, code = head.groups()
    inner = _CALLS.search(line)
    body = computations.get(inner[1], []) if inner else [line]
    work = [
      (kind, flops) for kind, flops in (_work(b, shapes) for b in body) if kind
    ]
    kind = max(work, key=lambda w: w[1])[0] if work else code
    if kind == "fusion":
      kind = "copy" if "transpose" in name or "copy" in name else "elementwise"
    where = _NAME.search(line)
    path = where[1].split("/", 2)[-1] if where else ""
    flops = sum(f for _, f in work)
    found.append((name, Operation(kind, shape.split("{")[0], path, flops)))
  return found


def _work(line: str, shapes: Mapping[str, list[int]]) -> tuple[str, float]:
  """(kind, floating-point operations) of an instruction that counts."""
  head = _LINE.match(line)
  code = head[3] if head else ""
  if code in ("convolution", "dot"):
    names = line.split(f" {code}(", 1)[1].split(")")[0].split(", ")
    operands = [shapes[name.split("%")[-1]] for name in names]
    each = _convolution if code == "convolution" else _product
    return code, 2.0 * math.prod(_sizes(head[2])) * each(line, operands)
  kinds = {"reduce": "reduction", "reduce-window": "window"}
  return kinds.get(code, ""), 0


def _sizes(shape: str) -> list[int]:
  found = _SHAPE.search(shape)
  return [int(x) for x in found[1].split(",") if x] if found else []


def _convolution(line: str, operands: list[list[int]]) -> float:
  """Products per value of the result, those with spread zeros left out."""
  kernel = operands[1]
  labels = _LABELS.search(line)[1]
  spread = _SPREAD.search(line)
  zeros = math.prod(map(int, spread.groups())) if spread else 1
  return math.prod(kernel) / kernel[labels.index("o")] / zeros


def _product(line: str, operands: list[list[int]]) -> float:
  axes = _CONTRACT.search(line)[1].split(",")
  return math.prod(operands[0][int(a)] for a in axes)
