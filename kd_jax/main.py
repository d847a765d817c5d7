"""The one entry point.

  python -m kd_jax.main --config configs/quickstart.py
  python -m kd_jax.main --config configs/kdep_r18.py:smoke --workdir runs/try
  python -m kd_jax.main --config FILE --config.optim.lr=0.1

A config says which task of kd_jax/tasks runs. Several processes find each
other through KD_JAX_COORDINATOR, KD_JAX_PROCESSES and KD_JAX_PROCESS, which
launch/local.sh sets.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging

from kd_jax import config as config_lib
from kd_jax import resolve
from kd_jax.train.loop import Stopped

CACHE = Path.home() / ".cache" / "kd_jax" / "xla"


def main(argv: Sequence[str] | None = None) -> int:
  """Runs what the command line asks for; 0 if all is well."""
  logging.use_absl_handler()
  logging.set_verbosity(logging.WARNING)
  args, rest = _parser().parse_known_args(argv)
  try:
    config = config_lib.load(args.config, _overrides(rest))
    task = resolve.symbol("tasks", config.task, "run")
    workdir = args.workdir or default_workdir(args.config)
    prepare()
    task(config, workdir)
  except Stopped as stop:
    print(stop, file=sys.stderr)
  except ValueError as error:
    if not _is_ours(error):
      raise
    return _fail(error)
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() == 1:
      raise
    return _fail(f"another process was lost ({str(error).splitlines()[0]})")
  return 0


def default_workdir(spec: str) -> str:
  """'configs/kdep_r18.py:smoke' -> 'runs/kdep_r18-smoke'."""
  path, _, variant = spec.partition(":")
  return "/".join(("runs", "-".join(filter(None, (Path(path).stem, variant)))))


def prepare() -> None:
  """Compilation cache, and the other processes if there are any."""
  cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(CACHE))
  jax.config.update("jax_compilation_cache_dir", cache)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
  coordinator = os.environ.get("KD_JAX_COORDINATOR")
  if coordinator and not jax.distributed.is_initialized():
    jax.distributed.initialize(
      coordinator,
      int(os.environ["KD_JAX_PROCESSES"]),
      int(os.environ["KD_JAX_PROCESS"]),
      heartbeat_timeout_seconds=10,
    )


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="kd_jax.main",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    "--config", required=True, help="path/to/config.py[:variant]"
  )
  parser.add_argument("--workdir", help="default: runs/<config>")
  return parser


def _overrides(rest: Sequence[str]) -> list[str]:
  """['--config.a.b=1', '--config.c', '2'] -> ['a.b=1', 'c=2'].

  Raises:
    ValueError: an argument that is no --config.field.
  """
  found, waiting = [], ""
  for arg in rest:
    if waiting:
      found.append(f"{waiting}={arg}")
      waiting = ""
    elif not arg.startswith("--config."):
      raise ValueError(
        f"unknown argument {arg!r}; there are --config FILE[:variant], "
        "--workdir DIR and --config.field=value"
      )
    elif "=" in arg:
      found.append(arg.removeprefix("--config."))
    else:
      waiting = arg.removeprefix("--config.")
  return [*found, waiting] if waiting else found


def _is_ours(error: ValueError) -> bool:
  """Whether this package raised it: then the message says what to do."""
  frame = error.__traceback__
  while frame.tb_next is not None:
    frame = frame.tb_next
  here = Path(__file__).parent
  return here in Path(frame.tb_frame.f_code.co_filename).parents


def _fail(error: Any) -> int:
  """One line for a foreseeable mistake; a lost process ends the others."""
  print(f"error: {error}", file=sys.stderr, flush=True)
  if jax.distributed.is_initialized():
    # An orderly exit would wait for processes that are gone.
    os._exit(1)
  return 1


if __name__ == "__main__":
  sys.exit(main())
