"""kd-jax models: which networks there are."""

from __future__ import annotations

import argparse

from kd_jax.commands.base import Commands, command


def add(commands: Commands) -> None:
  """Adds the command."""
  parser = command(commands, "models", "List the networks.")
  parser.add_argument(
    "pattern",
    nargs="?",
    default="",
    metavar="PATTERN",
    help="'vit_*' or a part of a name: sizes, costs and taps of these; "
    "default: the names of all, and the short names of teachers",
  )
  parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
  from kd_jax.door import listing

  listing.show(args.pattern)
