"""Blocks of code that the README and docs/ show, and the commands in them."""

import dataclasses
import pathlib
import re
import subprocess

import runs

PAGES = (runs.ROOT / "README.md", *sorted((runs.ROOT / "docs").glob("*.md")))
PROGRAMS = ("python", "kd-jax", "pip", "cp", "sed", "tensorboard")
_BLOCK = re.compile(
  r"(?:<!-- not run: (?P<reason>[^>]*) -->\n+)?"
  r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$",
  re.MULTILINE | re.DOTALL,
)
# Writes down how it was called, and what it was to read.
_STUB = """#!/bin/bash
printf '%s\\0' "${0##*/bin/}" "$@" >>"$LOG"
[[ $1 == - ]] && printf '%s\\0' "$(</dev/stdin)" >>"$LOG"
printf '\\1\\0' >>"$LOG"
"""


@dataclasses.dataclass(frozen=True)
class Block:
  """A fenced block.

  Attributes:
    page: its file's name.
    line: where it begins.
    language: what follows the fence.
    text: what is inside.
    reason: why it is not run; '' if it is.
  """

  page: str
  line: int
  language: str
  text: str
  reason: str

  def __str__(self):
    return f"{self.page}:{self.line}"


def blocks(language):
  """All blocks of a language."""
  return [x for page in PAGES for x in _blocks(page) if x.language == language]


def _blocks(page):
  text = page.read_text(encoding="utf-8")
  for match in _BLOCK.finditer(text):
    line = text.count("\n", 0, match.start("language")) + 1
    found = match.group("language", "text")
    yield Block(page.name, line, *found, (match["reason"] or "").strip())


def commands(text: str, folder: pathlib.Path) -> list[list[str]]:
  """What a shell would start for a block; nothing is started.

  Loops, variables and quotes are the shell's. A program that is not in
  `PROGRAMS` or launch/ is an error.
  """
  programs = [folder / "bin" / name for name in PROGRAMS]
  scripts = [x.name for x in (runs.ROOT / "launch").iterdir()]
  programs += [folder / "launch" / name for name in scripts]
  for path in programs:
    path.parent.mkdir(exist_ok=True)
    path.write_text(_STUB)
    path.chmod(0o755)
  log = folder / "log"
  log.write_text("")
  done = subprocess.run(
    ["/bin/bash", "-euc", text],
    cwd=folder,
    env={"PATH": str(folder / "bin"), "LOG": str(log)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  calls = log.read_text().split("\0\1\0")[:-1]
  return [call.split("\0") for call in calls]
