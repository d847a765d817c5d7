"""kd-jax compare: several runs on one page."""

from __future__ import annotations

import argparse

from kd_jax.commands.base import Commands, command


def add(commands: Commands) -> None:
  """Adds the command."""
  parser = command(
    commands, "compare", "Curves, figures and settings of runs, on one page."
  )
  option = parser.add_argument
  option("runs", nargs="+", metavar="RUN", help="the folders of two or more")
  option(
    "--out",
    default="comparison.html",
    metavar="FILE",
    help="default: comparison.html",
  )
  parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
  from kd_jax.door.finished.compare import compare

  compare(args.runs, args.out)
