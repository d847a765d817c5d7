"""How a command is declared."""

from __future__ import annotations

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command adds its parser."""


def command(
  commands: Commands, name: str, text: str
) -> argparse.ArgumentParser:
  """The parser of a command; its caller adds arguments, and sets `run`.

  Args:
    commands: of `kd-jax`.
    name: as it is typed.
    text: what it does, in a sentence.
  """
  return commands.add_parser(
    name, help=text, description=text, allow_abbrev=False
  )
