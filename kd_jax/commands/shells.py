"""Scripts that complete command lines: static, so that nothing has to start.

bash and zsh share one, since zsh runs bash's completions; fish has its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence

Names = Mapping[str, Sequence[str]]
"""Option without dashes -> what it can be."""

Known = Mapping[str, Mapping[str, str]]
"""Command -> option, with dashes -> its help."""

_BASH = """\
_kd_jax() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}"
  local before="${{COMP_WORDS[COMP_CWORD-1]}}"
  local options="" names=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{commands} --help" -- "$word"))
    return
  fi
  case "$before" in
{values}
  esac
  if [ -n "$names" ]; then
    COMPREPLY=($(compgen -W "$names" -- "$word") $(compgen -d -- "$word"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{options}
  esac
  case "$word" in
    -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
  esac
}}
complete -o filenames -F _kd_jax kd-jax
"""
_ZSH = """\
autoload -U +X bashcompinit && bashcompinit
"""


def known(parsers: Mapping[str, argparse.ArgumentParser]) -> Known:
  """What can be typed after every command."""
  return {
    name: {
      flag: action.help or ""
      for action in parser._actions
      for flag in action.option_strings
      if flag.startswith("--")
    }
    for name, parser in parsers.items()
  }


def bash(known: Known, names: Names) -> str:
  """The script for bash."""
  values = [
    f'    --{option}) names="{" ".join(found)}" ;;'
    for option, found in names.items()
  ]
  options = [
    f'    {name}) options="{" ".join(found)}" ;;'
    for name, found in known.items()
  ]
  return _BASH.format(
    commands=" ".join(known),
    values="\n".join(values),
    options="\n".join(options),
  )


def zsh(known: Known, names: Names) -> str:
  """The script for zsh: that for bash, which zsh can run."""
  return _ZSH + bash(known, names)


def fish(known: Known, names: Names) -> str:
  """The script for fish."""
  lines = [
    "complete -c kd-jax -n __fish_use_subcommand -f -a " + _quoted(known)
  ]
  for name, options in known.items():
    for flag, text in options.items():
      option = flag.removeprefix("--")
      line = (
        f"complete -c kd-jax -n '__fish_seen_subcommand_from {name}' "
        f"-l {option} -d {_quoted([text])}"
      )
      if option in names:
        line += f" -x -a {_quoted(names[option])}"
      lines.append(line)
  return "\n".join(lines)


def _quoted(words: Iterable[str]) -> str:
  """One word of fish's."""
  text = " ".join(words).replace("\\", "\\\\").replace("'", "\\'")
  return f"'{text}'"


WRITERS: Mapping[str, Callable[[Known, Names], str]] = {
  "bash": bash,
  "fish": fish,
  "zsh": zsh,
}
"""Shell -> what writes its script."""
