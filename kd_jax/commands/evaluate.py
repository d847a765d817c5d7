"""kd-jax evaluate: what a student is worth."""

from __future__ import annotations

import argparse

from kd_jax.commands.base import Commands, command


def add(commands: Commands) -> None:
  """Adds the command."""
  parser = command(
    commands, "evaluate", "How well a student tells labelled images apart."
  )
  option = parser.add_argument
  option("images", metavar="DIR", help="a folder with a folder per class")
  option(
    "--model",
    required=True,
    metavar="RUN",
    help="the folder of a run or of a checkpoint, or a name as a teacher's",
  )
  option("--val", default="", metavar="DIR", help="for test; default: a fifth")
  option(
    "--protocol",
    dest="protocols",
    action="append",
    metavar="NAME",
    help="knn or probe, may be repeated; default: both",
  )
  option(
    "--per-class",
    type=int,
    default=0,
    metavar="N",
    help="images of a class to learn from; default: all",
  )
  option(
    "--teacher-also",
    action="store_true",
    help="judge the run's teacher as well",
  )
  option("--out", default="", metavar="DIR", help="default: RUN/evaluate")
  option("--weights", default="", metavar="FROM", help="of a name")
  option("--batch-size", type=int, default=32, metavar="N", help="default: 32")
  option("--seed", type=int, default=0, metavar="N", help="default: 0")
  parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
  from kd_jax.door.finished import worth
  from kd_jax.door.finished.evaluate import evaluate
  from kd_jax.main import prepare

  prepare()
  fields = {k: v for k, v in vars(args).items() if k != "run" and v is not None}
  fields["teacher"] = fields.pop("teacher_also")
  print(worth.show(evaluate(**fields)))
