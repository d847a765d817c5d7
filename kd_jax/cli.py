"""kd-jax: a folder of images, a teacher and a student, from one command.

  kd-jax distill --images DIR --teacher dinov2-base --out runs/mine
  kd-jax evaluate DIR --model runs/mine

Exit status: as of `kd_jax.main`; 1 for a wrong command line, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from kd_jax.commands import (
  compare,
  completion,
  distill,
  doctor,
  embed,
  evaluate,
  export,
  models,
  push,
)
from kd_jax.main import guarded

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
  for each in (
    distill,
    embed,
    evaluate,
    compare,
    export,
    push,
    models,
    doctor,
    completion,
  ):
    each.add(commands)
  return parser
