"""kd-jax embed: features of a folder of images."""

from __future__ import annotations

import argparse

from kd_jax.commands.base import Commands, command


def add(commands: Commands) -> None:
  """Adds the command."""
  parser = command(commands, "embed", "Features of every image of a folder.")
  option = parser.add_argument
  option("images", metavar="DIR", help="a folder of images")
  option(
    "--model",
    required=True,
    metavar="RUN",
    help="the folder of a run or of a checkpoint, or a name as a teacher's",
  )
  option("--out", required=True, metavar="FILE", help="a .npz or .parquet file")
  option("--weights", default="", metavar="FROM", help="of a name")
  option("--batch-size", type=int, default=32, metavar="N", help="default: 32")
  parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
  from kd_jax.door.embed import embed
  from kd_jax.main import prepare

  prepare()
  embed(
    args.images,
    args.model,
    args.out,
    weights=args.weights,
    batch_size=args.batch_size,
  )
