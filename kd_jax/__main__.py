"""`python -m kd_jax` is `kd-jax`."""

from __future__ import annotations

import signal
import sys


def main() -> int:
  """Runs the command line.

  While packages are imported, and at exit, Ctrl-C just ends the process: what
  it would raise there passes through code of others, which prints tracebacks,
  or loses it. `kd_jax.main.prepare` says when it may be raised.

  Returns:
    The exit status, see `kd_jax.cli`.
  """
  _ends_at_once()
  from kd_jax import cli

  status = cli.main()
  _ends_at_once()
  return status


def _ends_at_once() -> None:
  # A background job, which ignores it, goes on to do so.
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
  sys.exit(main())
