"""What one of several teachers says, as if it were the only one.

Taps, stages and statistics of the teacher NAME are called 'NAME/...' among
those of all; a method that hears it alone knows them without the name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from kd_jax.interfaces import Method
from kd_jax.types import Array, Artifact, Taps, Teacher


def own(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
  """What belongs to one teacher, without its name."""
  start = f"{name}/"
  return {
    key.removeprefix(start): value
    for key, value in tree.items()
    if key.startswith(start)
  }


def alone(teacher: Teacher, name: str) -> Teacher:
  """One of several teachers."""
  resume = teacher.resume
  if resume is not None:
    resume = functools.partial(_resume, resume, name)
  return Teacher(own(teacher.taps, name), resume)


def artifact_taps(method: Method) -> tuple[str, ...]:
  """All taps whose statistics a method reads."""
  tap = method.artifact_tap
  return method.artifact_taps if tap is None else (tap,)


def artifact(method: Method, found: Artifact, start: str) -> Artifact:
  """The statistics that a method reads, as it expects them.

  Args:
    method: hears one teacher.
    found: {tap: statistics} of all.
    start: how the taps of its teacher begin.
  """
  if method.artifact_tap is not None:
    return found[start + method.artifact_tap]
  return {tap: found[start + tap] for tap in method.artifact_taps}


def _resume(
  resume: Callable[..., Taps],
  name: str,
  begin: str,
  x: Array,
  end: str = "head",
) -> Taps:
  return resume(f"{name}/{begin}", x, end=end)
