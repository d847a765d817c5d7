"""kd-jax push: a student on the Hugging Face hub."""

from __future__ import annotations

import argparse

from kd_jax.commands.base import Commands, command


def add(commands: Commands) -> None:
  """Adds the command."""
  parser = command(
    commands, "push", "Send a student and its card to the Hugging Face hub."
  )
  option = parser.add_argument
  option("run_folder", metavar="RUN", help="the folder of a run")
  option("repo", metavar="OWNER/NAME", help="is made if there is none")
  option("--private", action="store_true", help="only its owner sees it")
  option("--revision", default="", metavar="NAME", help="branch; default: main")
  option(
    "--license",
    dest="licence",
    default="",
    metavar="NAME",
    help="as the hub calls it, such as apache-2.0; default: unknown",
  )
  option("--dry-run", action="store_true", help="say what would be sent")
  parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
  from kd_jax.door.finished.push import push

  fields = {
    k: v for k, v in vars(args).items() if k not in ("run", "run_folder")
  }
  push(args.run_folder, **fields)
