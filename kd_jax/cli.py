"""kd-jax: a folder of images, a teacher and a student, from one command.

  kd-jax distill --images DIR --teacher dinov2-base --out runs/mine
  kd-jax embed DIR --model runs/mine --out features.npz
  kd-jax export runs/mine
  kd-jax models 'resnet*'
  kd-jax doctor

Exit status: as of `kd_jax.main`; 1 for a wrong command line, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

_LESS = "Lower --batch-size or --image-size."


class _Parser(argparse.ArgumentParser):
  """One that says in one line what is wrong."""

  def error(self, message: str) -> NoReturn:
    raise ValueError(f"{message}; '{self.prog} --help' shows what there is")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs what the command line asks for.

  Returns:
    The exit status, see above.
  """
  try:
    args = _parser().parse_args(argv)
    # Only now, so that --help need not wait for JAX.
    from kd_jax.main import guarded
  except ValueError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("interrupted; the same command starts again", file=sys.stderr)
    return 130
  bad: list[bool] = []
  status = guarded(lambda: bad.append(bool(args.run(args))), _LESS)
  return status or int(any(bad))


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog="kd-jax",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(metavar="COMMAND", required=True)
  for add in (_add_distill, _add_embed, _add_export, _add_models, _add_doctor):
    add(commands)
  return parser


_Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _command(
  commands: _Commands, name: str, text: str
) -> argparse.ArgumentParser:
  return commands.add_parser(
    name, help=text, description=text, allow_abbrev=False
  )


def _add_distill(commands: _Commands) -> None:
  parser = _command(
    commands, "distill", "Pre-train a student on images without labels."
  )
  add = parser.add_argument
  add("--images", required=True, metavar="DIR", help="a folder of images")
  add(
    "--teacher",
    required=True,
    metavar="NAME",
    help="dinov2-base, resnet50, any timm name, or a folder with a checkpoint",
  )
  add("--student", default="resnet18", metavar="NAME", help="see kd-jax models")
  add("--out", default="runs/mine", metavar="DIR", help="default: runs/mine")
  add(
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
    add(f"--{name}", type=int, metavar="N", help=f"{text}; {by}")
  add(
    "--teacher-weights",
    default="",
    metavar="FROM",
    help="a file, a folder, a hub name, or 'random' for an untrained teacher",
  )
  add("--seed", type=int, default=0, metavar="N", help="default: 0")
  parser.set_defaults(run=_distill)


def _distill(args: argparse.Namespace) -> None:
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


def _add_embed(commands: _Commands) -> None:
  parser = _command(commands, "embed", "Features of every image of a folder.")
  add = parser.add_argument
  add("images", metavar="DIR", help="a folder of images")
  add(
    "--model",
    required=True,
    metavar="RUN",
    help="the folder of a run or of a checkpoint, or a name as a teacher's",
  )
  add("--out", required=True, metavar="FILE", help="a .npz or .parquet file")
  add("--weights", default="", metavar="FROM", help="of a name")
  add("--batch-size", type=int, default=32, metavar="N", help="default: 32")
  parser.set_defaults(run=_embed)


def _embed(args: argparse.Namespace) -> None:
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


def _add_export(commands: _Commands) -> None:
  parser = _command(
    commands, "export", "Write the student of a run for other libraries."
  )
  add = parser.add_argument
  add("run_folder", metavar="RUN", help="the folder of a run")
  add("--out", default="", metavar="DIR", help="default: RUN/export")
  add(
    "--format",
    default="",
    metavar="NAME",
    help="detectron2, mmdetection or torchvision; default: timm, Flax and "
    "StableHLO",
  )
  parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> None:
  from kd_jax.door.distill import export_run
  from kd_jax.main import prepare

  prepare()
  export_run(args.run_folder, args.out, args.format)


def _add_models(commands: _Commands) -> None:
  parser = _command(commands, "models", "List the networks.")
  parser.add_argument(
    "pattern",
    nargs="?",
    default="",
    metavar="PATTERN",
    help="'vit_*' or a part of a name: sizes, costs and taps of these; "
    "default: the names of all, and the short names of teachers",
  )
  parser.set_defaults(run=_models)


def _models(args: argparse.Namespace) -> None:
  from kd_jax.door import listing

  listing.show(args.pattern)


def _add_doctor(commands: _Commands) -> None:
  parser = _command(commands, "doctor", "What this machine has and misses.")
  parser.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> bool:
  """Prints the findings; returns whether one is bad."""
  from kd_jax.door import doctor

  del args
  found = doctor.examine()
  print("\n".join(map(str, found)))
  return not all(each.good for each in found)
