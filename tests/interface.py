"""What users can name: commands, functions, models, parts, config fields.

`python tests/interface.py` writes the list of today to
tests/golden/interface.json. Run it when something is added; what has been
promised is only ever taken back on purpose.
"""

import dataclasses
import importlib
import inspect
import json
import pathlib
import re

from kd_jax import config as config_lib
from kd_jax import models, resolve, trees

ROOT = pathlib.Path(__file__).parents[1]
LIST = ROOT / "tests" / "golden" / "interface.json"
FUNCTIONS = {
  "kd_jax": ("create_model", "load_pretrained", "export_timm"),
  "kd_jax.config": ("load",),
  "kd_jax.convert": (
    "from_timm",
    "load_pretrained",
    "read_checkpoint",
    "save_flax",
    "save_timm",
    "to_timm",
  ),
  "kd_jax.main": ("main",),
  "kd_jax.models": ("create_model", "family_of", "list_models"),
  "kd_jax.tasks.export": ("run",),
  "kd_jax.tasks.fit_svd": ("run",),
  "kd_jax.tasks.models": ("run",),
  "kd_jax.tasks.prepare": ("run",),
  "kd_jax.tasks.pretrain": ("run",),
  "kd_jax.tasks.suite": ("run",),
  "kd_jax.tasks.classify": ("run",),
  "kd_jax.tasks.segment": ("run",),
  "kd_jax.tasks.write_bank": ("run",),
}
# Field of a config -> the floor of its file, and what the file defines.
PARTS = {
  "align": ("align", "Aligner"),
  "codec": ("codecs", "Codec"),
  "data": ("data.sources", "Source"),
  "evals": ("evals", "evaluate"),
  "head": ("transfer.heads", "Head"),
  "method": ("methods", "Method"),
  "task": ("tasks", "run"),
  "teacher": ("teachers", "load"),
}


def functions():
  """{'module.name': ['parameter', 'parameter=default', ...]}."""
  found = {}
  for module, names in FUNCTIONS.items():
    for name in names:
      function = getattr(importlib.import_module(module), name)
      found[f"{module}.{name}"] = [
        re.sub(r":.*?( = |$)", r"\1", str(p)).replace(" ", "")
        for p in inspect.signature(function).parameters.values()
      ]
  return found


def parts():
  """{'data/folder': ['field=default', ...]} of all that a config can name."""
  found = {}
  for part, (floor, symbol) in PARTS.items():
    for name in resolve.names(floor, symbol):
      what = resolve.symbol(floor, name, symbol)
      own = dataclasses.fields(what) if dataclasses.is_dataclass(what) else ()
      found[f"{part}/{name}"] = [_field(f) for f in own if _settable(f)]
  return found


def _settable(field):
  """Whether it can be given; the last two are every module's own."""
  return field.init and field.name not in ("parent", "name")


def _field(field):
  if field.default is dataclasses.MISSING:
    return field.name
  return f"{field.name}={field.default!r}"


def commands():
  """{'python -m benchmarks.input': []}; tasks and configs stand elsewhere."""
  benchmarks = (ROOT / "benchmarks").glob("[a-z]*.py")
  names = [f"benchmarks.{path.stem}" for path in benchmarks]
  scripts = [f"launch/{path.name}" for path in (ROOT / "launch").glob("*.sh")]
  return {
    **{f"python -m {name}": [] for name in sorted(["kd_jax.main", *names])},
    **{name: [] for name in sorted(scripts)},
  }


def options():
  """{'resnet': ['num_classes=1000', ...]}: what `create_model` takes."""
  return {
    family: [
      _field(f)
      for f in dataclasses.fields(resolve.symbol("models", family, "Model"))
      if _settable(f)
    ]
    for family in resolve.names("models", "VARIANTS")
  }


def configs():
  """{'kdep_r18': ['batch_size=int', ...]}; variants: what they have beside."""
  found = {}
  for path in sorted((ROOT / "configs").glob("[a-z]*.py")):
    if path.stem.startswith("common"):
      continue
    for variant in variants(path):
      spec = f"{path.stem}:{variant}".rstrip(":")
      tree = trees.flatten(config_lib.load(f"{path}:{variant}").to_dict())
      fields = {
        f"{name.replace('/', '.')}={type(value).__name__}"
        for name, value in tree.items()
      }
      found[spec] = sorted(fields - set(found.get(path.stem, ())))
  return found


def variants(path):
  """Those that a config knows, from what it says about an unknown one."""
  try:
    config_lib.load(f"{path}:nosuch")
  except ValueError as error:
    return re.findall(r"'(\w*)'", str(error).partition("it has")[2])
  raise AssertionError(f"{path} takes any variant")


def today():
  """All of it, as JSON has it."""
  return {
    "commands": commands(),
    "configs": configs(),
    "functions": functions(),
    "options": options(),
    "models": {name: [] for name in models.list_models()},
    "parts": parts(),
  }


if __name__ == "__main__":
  sections = [
    f"{json.dumps(title)}: {{\n"
    + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in part.items())
    + "\n}"
    for title, part in today().items()
  ]
  LIST.write_text("{\n" + ",\n".join(sections) + "\n}\n")
