"""kd-jax completion: what a shell needs to complete these commands."""

from __future__ import annotations

import argparse

from kd_jax.commands import shells
from kd_jax.commands.base import Commands, command


def add(commands: Commands) -> None:
  """Adds the command."""
  parser = command(
    commands, "completion", "Print a script that completes in your shell."
  )
  parser.add_argument(
    "shell",
    metavar="SHELL",
    choices=sorted(shells.WRITERS),
    help='bash: eval "$(kd-jax completion bash)" in ~/.bashrc; zsh: the same '
    "in ~/.zshrc, after compinit; fish: kd-jax completion fish | source",
  )
  parser.set_defaults(run=lambda args: _run(args, commands))


def _run(args: argparse.Namespace, commands: Commands) -> None:
  from kd_jax import models
  from kd_jax.door import teachers

  names = {
    "student": models.list_models(),
    "teacher": [*teachers.ALIASES, *models.list_models()],
  }
  print(shells.WRITERS[args.shell](shells.known(commands.choices), names))
