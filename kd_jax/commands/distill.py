"""kd-jax distill: pre-trains a student."""

from __future__ import annotations

import argparse
import sys

from kd_jax.commands.base import Commands, command


def add(commands: Commands) -> None:
  """Adds the command."""
  parser = command(
    commands, "distill", "Pre-train a student on images without labels."
  )
  option = parser.add_argument
  option("--images", required=True, metavar="DIR", help="a folder of images")
  option(
    "--teacher",
    required=True,
    metavar="NAME",
    help="dinov2-base, resnet50, any timm name, or a folder with a checkpoint",
  )
  option(
    "--student", default="resnet18", metavar="NAME", help="see kd-jax models"
  )
  option("--out", default="runs/mine", metavar="DIR", help="default: runs/mine")
  option(
    "--method",
    default="kdep",
    metavar="NAME",
    help="kdep, scalekd or stagewise",
  )
  for name, text in (
    ("steps", "updates"),
    ("image-size", "pixels"),
    ("batch-size", "images per update"),
  ):
    by = "default: by images and machine"
    option(f"--{name}", type=int, metavar="N", help=f"{text}; {by}")
  option(
    "--teacher-weights",
    default="",
    metavar="FROM",
    help="a file, a folder, a hub name, or 'random' for an untrained teacher",
  )
  option("--seed", type=int, default=0, metavar="N", help="default: 0")
  parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
  from kd_jax.door.distill import distill
  from kd_jax.main import prepare

  prepare()
  fields = {k: v for k, v in vars(args).items() if k != "run"}
  out = distill(**fields)
  print(
    f"report: {out}/report.html\nstudent for timm: {out}/export/timm\n"
    f"features: kd-jax embed {args.images} --model {out} --out features.npz",
    file=sys.stderr,
  )
