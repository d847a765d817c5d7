"""The one entry point.

  python -m kd_jax.main --config configs/quickstart.py
  python -m kd_jax.main --config configs/kdep_r18.py:smoke --workdir runs/try
  python -m kd_jax.main --config FILE --config.optim.lr=0.1

A config says which task of kd_jax/tasks runs. kd_jax/processes.py says how
several processes find each other; the scripts in launch/ start them.

Exit status: 0, also after SIGTERM or Ctrl-C once the state is saved, unless
KD_JAX_STOP_STATUS names another for that; 1 after an error; 2 for a wrong
command line; 3 when another process was lost; 130 after Ctrl-C outside of
training.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import logging

from kd_jax import disk, last_words, resolve
from kd_jax.train.signals import Stopped

CACHE = Path.home() / ".cache" / "kd_jax" / "xla"


def main(argv: Sequence[str] | None = None) -> int:
  """Runs what the command line asks for.

  Returns:
    The exit status, see above.
  """
  args, rest = _parser().parse_known_args(argv)

  # Here and below: JAX comes only now, so that --help need not wait for it.
  def run() -> None:
    from kd_jax import config as config_lib
    from kd_jax.buckets import spool

    config = config_lib.load(args.config, _overrides(rest))
    task = resolve.symbol("tasks", config.task, "run")
    workdir = args.workdir or default_workdir(args.config)
    prepare()
    with spool.mounted(workdir) as where:
      task(config, where)

  return guarded(run)


_LESS = (
  "Lower --config.batch_size, raise --config.accum_steps, or set "
  "--config.fsdp=true on several devices."
)


def guarded(run: Callable[[], object], less: str = _LESS) -> int:
  """Runs a command; what ends it early becomes one line and a status.

  Args:
    run: does everything that can go wrong.
    less: what a command that runs out of memory should do.

  Returns:
    The exit status, see above.
  """
  logging.use_absl_handler()
  logging.set_verbosity(logging.WARNING)
  status = 0
  try:
    status = stop_status()
    run()
  except Stopped as stop:
    _say(str(stop))
    return status
  except KeyboardInterrupt:
    return _leave("interrupted; the same command starts again", 130)
  except Exception as error:
    return _leave(*_explain(error, less))
  return 0


def default_workdir(spec: str) -> str:
  """'configs/kdep_r18.py:smoke' -> 'runs/kdep_r18-smoke'."""
  path, _, variant = spec.partition(":")
  return "/".join(("runs", "-".join(filter(None, (Path(path).stem, variant)))))


def prepare() -> None:
  """Compilation cache, the other processes if there are any, and devices.

  From now on Ctrl-C raises KeyboardInterrupt.

  Raises:
    ValueError: the processes are described by halves, or cannot be reached,
      or JAX_PLATFORMS names no device that is here.
  """
  import jax

  from kd_jax import processes

  keep_memory()
  # Whole tracebacks: `_explain` looks at who raised an error.
  jax.config.update("jax_traceback_filtering", "off")
  if jax.config.values["jax_compilation_cache_dir"] is None:
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
  processes.join()
  processes.check_devices()
  if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see kd_jax.__main__
    signal.signal(signal.SIGINT, signal.default_int_handler)


def keep_memory() -> bool:
  """Keeps the freed memory of this process, where steps run on a CPU.

  glibc returns large blocks to the system at once, and every step pays for new
  pages: 76,000 faults, a sixth of its time for ResNet-18 on 32 images of 112
  pixels. Call it before JAX's backend starts; hosts of accelerators, where
  steps need little of the host's memory, stay as they are.

  Returns:
    Whether glibc took the settings.
  """
  plugins = importlib.metadata.entry_points(group="jax_plugins")
  accelerated = plugins or importlib.util.find_spec("libtpu")
  asked = os.environ.get("JAX_PLATFORMS", "")
  if platform.libc_ver()[0] != "glibc" or (accelerated and asked != "cpu"):
    return False
  import jax

  # Only the main thread's arena keeps blocks of more than 64 MiB, so a step
  # runs in the thread that calls it. One arena for all threads would keep them
  # too, and compiling takes a quarter longer with it, half as long again where
  # two steps are compiled at once.
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  # malloc.h: no M_MMAP_MAX; M_TRIM_THRESHOLD never met.
  settings = {-4: 0, -1: 2**31 - 1}
  mallopt = ctypes.CDLL(None).mallopt
  return all(mallopt(key, value) for key, value in settings.items())


def stop_status() -> int:
  """The status of a run that was stopped and saved, to tell it from a whole.

  Raises:
    ValueError: KD_JAX_STOP_STATUS is no exit status.
  """
  text = os.environ.get("KD_JAX_STOP_STATUS") or "0"
  if not text.isdigit() or int(text) > 255:
    raise ValueError(
      f"KD_JAX_STOP_STATUS is {text!r}; it must be an exit status from 0 to "
      "255. Unset it to end with 0."
    )
  return int(text)


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
  parser.add_argument(
    "--workdir", help="a folder, gs://... or s3://...; default: runs/<config>"
  )
  return parser


def _overrides(rest: Sequence[str]) -> list[str]:
  """['--config.a.b=1', '--config.c', '2'] -> ['a.b=1', 'c=2'].

  Raises:
    ValueError: an argument that is no --config.field.
  """
  found, waiting = [], ""
  for arg in rest:
    if waiting and not arg.startswith("--"):
      found.append(f"{waiting}={arg}")
      waiting = ""
    elif waiting:
      break  # `load` says that it has no value.
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


def _explain(error: Exception, less: str) -> tuple[str, int]:
  """One line about a foreseeable mistake, or the traceback of a bug."""
  import jax

  if isinstance(error, ValueError) and _is_ours(error):
    return f"error: {error}", 1
  if isinstance(error, jax.errors.JaxRuntimeError):
    first = str(error).splitlines()[0]
    if "RESOURCE_EXHAUSTED" in first:
      return f"error: the device is out of memory ({first}). {less}", 1
    if jax.process_count() > 1:
      return f"error: another process was lost ({first})", last_words.LOST
  if disk.code(error) in disk.FULL:
    return f"error: {_unwritten(error)}", 1
  return "".join(traceback.format_exception(error)), 1


def _unwritten(error: Exception) -> str:
  """A full disk, where nobody has said more than the system."""
  known = error.filename if isinstance(error, OSError) else None
  path = Path(os.fsdecode(known or os.curdir))
  what = path.name if known else "a file"
  folder = path.parent if known else "the disk"
  return f"{what} cannot be written to {folder} ({error}). {disk.fix(error)}"


def _is_ours(error: ValueError) -> bool:
  """Whether this package raised it: then the message says what to do."""
  *_, (frame, _) = traceback.walk_tb(error.__traceback__)
  here = Path(__file__).parent
  return here in Path(frame.f_code.co_filename).parents


def _say(message: str) -> None:
  # Whoever listened may be gone, which is no reason not to end in order.
  with contextlib.suppress(OSError):
    print(message, file=sys.stderr, flush=True)


def _leave(message: str, status: int) -> int:
  # Ctrl-C may have ended the import of JAX, which cannot be repeated then.
  jax = sys.modules.get("jax")
  if jax is not None and jax.distributed.is_initialized():
    # An orderly exit would wait for the others, who wait for this one.
    last_words.leave(message, status)
  _say(message)
  return status


if __name__ == "__main__":
  sys.exit(main())
