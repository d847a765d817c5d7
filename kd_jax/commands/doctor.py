"""kd-jax doctor: what this machine has."""

from __future__ import annotations

import argparse

from kd_jax.commands.base import Commands, command


def add(commands: Commands) -> None:
  """Adds the command."""
  parser = command(commands, "doctor", "What this machine has and misses.")
  parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> bool:
  """Prints the findings; returns whether one is bad."""
  from kd_jax.door import doctor

  del args
  found = doctor.examine()
  print("\n".join(map(str, found)))
  return not all(each.good for each in found)
