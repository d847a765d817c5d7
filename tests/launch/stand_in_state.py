"""What the stand-ins share: a folder, a plan of failures, strict flags."""

import json
import os
import pathlib

FOLDER = pathlib.Path(os.environ.get("STAND_INS", "."))


class Refused(Exception):  # noqa: N818 (it is what the real ones print)
  """What a command says before it ends with a status."""

  def __init__(self, text, status=1):
    super().__init__(text)
    self.status = status


def read(name, default=None):
  path = FOLDER / name
  return json.loads(path.read_text()) if path.exists() else default


def write(name, value):
  path = FOLDER / name
  path.parent.mkdir(parents=True, exist_ok=True)
  new = path.with_name(f"{path.name}.{os.getpid()}.new")
  new.write_text(json.dumps(value))
  new.replace(path)


def parse(words, flags, needed=()):
  """(positional words, {flag: value}), as strict as the real ones."""
  found, rest, words = {}, [], list(words)
  while words:
    flag, equals, value = words.pop(0).partition("=")
    if not flag.startswith("--"):
      rest.append(flag + equals + value)
    elif flag not in flags or (equals and not flags[flag]):
      raise Refused(f"unrecognized arguments: {flag}{equals}{value}", 2)
    elif flags[flag] and not equals:
      raise Refused(f"write {flag}=VALUE, as all scripts here do", 2)
    else:
      found[flag] = value if equals else True
  for flag in needed:
    if flag not in found:
      raise Refused(f"argument {flag}: Must be specified.", 2)
  return rest, found


def planned(what):
  """The next failure that is planned for a command, '' for none."""
  plan = read("plan.json", {})
  first, *plan[what] = plan.get(what) or [""]
  write("plan.json", plan)
  return first
