"""Contenders run in turns: do they agree, how long do they take.

'wall' ratios are medians over the rounds, 'cpu' ratios compare minima of
process time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

KDEP, TEACHER, SUPERVISED = "kdep", "teacher", "supervised"
TORCH = "PyTorch "
# Relative differences that pass: of the first losses, and of the first update
# of a kernel. The losses hardly feel a wrong gradient: one that was 19 % off in
# the stem moved the second loss by 5e-6. In float32 both sides are up to 2.5e-2
# from a float64 update (MobileNetV2); in bfloat16 0.4 apart, so that there only
# the losses tell.
TOLERANCE = {"float32": (1e-4, 5e-2), "bfloat16": (5e-2, 1.0)}

Run = Callable[[int], float]
"""Runs so many steps, waits for them and returns the last loss."""


Weights = Callable[[], Mapping[str, np.ndarray]]
"""The student's tensors as they are now, with timm's names."""


class Times(NamedTuple):
  """Seconds per step of one contender, a value per round.

  Attributes:
    wall: elapsed time.
    cpu: time of all threads of this process.
  """

  wall: list[float]
  cpu: list[float]


def check(
  losses: Sequence[Sequence[float]],
  updates: Sequence[Mapping[str, np.ndarray]],
  dtype: str,
) -> str:
  """Compares two sides by their first losses and first update.

  Args:
    losses: of the first steps, per side.
    updates: {tensor: change in the first step}, per side; those that both
      have are compared.
    dtype: one of `TOLERANCE`.

  Returns:
    What was found, in a line.

  Raises:
    ValueError: the two sides do not compute the same.
  """
  shown = " and ".join(str([round(x, 4) for x in side]) for side in losses)
  names = sorted(set(updates[0]) & set(updates[1]))
  apart = [distance(*(u[n] for u in updates)) for n in names]
  # NumPy's max, unlike Python's, is nan if one of them is.
  worst = names[int(np.argmax(apart))]
  found = (np.max(np.abs(np.divide(*losses) - 1)), np.max(apart))
  text = (
    f"first losses {shown}, {found[0]:.0e} apart; first updates of "
    f"{len(names)} tensors at most {found[1]:.0e} ({worst})"
  )
  if not np.all(np.array(found) <= TOLERANCE[dtype]):
    raise ValueError(
      f"kd_jax and PyTorch do not compute the same: {text}. In {dtype} "
      f"{TOLERANCE[dtype]} is allowed."
    )
  return text


def distance(mine: np.ndarray, theirs: np.ndarray) -> float:
  """||mine - theirs|| / ||theirs||."""
  return np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)


def measure(runs: Mapping[str, Run], steps: int, rounds: int) -> dict:
  """{name: Times}; every round lets each contender run once."""
  times = {name: Times([], []) for name in runs}
  for _ in range(rounds):
    for name, run in runs.items():
      run(1)  # caches and threads become this contender's own
      wall, cpu = time.perf_counter(), time.process_time()
      run(steps)
      times[name].wall.append((time.perf_counter() - wall) / steps)
      times[name].cpu.append((time.process_time() - cpu) / steps)
  return times


def table(times: Mapping[str, Times], first: Mapping[str, float], n: int):
  """Prints a line per contender, then the ratios."""
  print(f"{'':22}ms/step  cpu ms  images/s  compile s")
  for name, (wall, cpu) in times.items():
    middle = statistics.median(wall)
    print(
      f"{name:20}{middle * 1e3:9.1f}{min(cpu) * 1e3:8.1f}{n / middle:10.1f}"
      f"{max(first[name] - middle, 0):11.1f}"
    )
  print(f"\n{'':34}wall     cpu")
  pairs = (
    (KDEP, TORCH + KDEP),
    (TEACHER, TORCH + TEACHER),
    (SUPERVISED, TORCH + SUPERVISED),
    (KDEP, SUPERVISED),
  )
  for over, under in pairs:
    if over in times and under in times:
      a, b = times[over], times[under]
      ratios = (x / y for x, y in zip(a.wall, b.wall, strict=True))
      wall, cpu = statistics.median(ratios), min(a.cpu) / min(b.cpu)
      print(f"{over + ' / ' + under:30}{wall:8.2f}{cpu:8.2f}")
