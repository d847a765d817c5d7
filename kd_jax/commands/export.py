"""kd-jax export: the student for other libraries."""

from __future__ import annotations

import argparse

from kd_jax.commands.base import Commands, command


def add(commands: Commands) -> None:
  """Adds the command."""
  parser = command(
    commands, "export", "Write the student of a run for other libraries."
  )
  option = parser.add_argument
  option("run_folder", metavar="RUN", help="the folder of a run")
  option("--out", default="", metavar="DIR", help="default: RUN/export")
  option(
    "--format",
    default="",
    metavar="NAME",
    help="onnx, detectron2, mmdetection or torchvision; default: timm, Flax "
    "and StableHLO",
  )
  option(
    "--fused",
    action="store_true",
    help="merge branches and batch normalisation into convolutions",
  )
  parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
  from kd_jax.door.distill import export_run
  from kd_jax.main import prepare

  prepare()
  export_run(args.run_folder, args.out, args.format, fused=args.fused)
