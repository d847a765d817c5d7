"""kd_jax.main on a disk that is full from the first call of a function on.

  python tests/disk_case.py FUNCTION ARGUMENTS OF kd_jax.main

A limit on the size of files refuses writes as a full disk does.
"""

import contextlib
import functools
import pkgutil
import resource
import sys

from kd_jax import main

MOST = 64  # bytes of a file


@contextlib.contextmanager
def full():
  """As long as the block lasts."""
  old = fill()
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def fill():
  """From now on; the limits before."""
  old = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, old[1]))
  return old


def owner_of(name):
  """'kd_jax.a.B.c' -> (the class B, 'c')."""
  head, _, tail = name.rpartition(".")
  return pkgutil.resolve_name(head), tail


def refusing(function):
  """`function` while the disk is full."""

  @functools.wraps(function)
  def call(*args, **kwargs):
    with full():
      return function(*args, **kwargs)

  return call


def last(function):
  """`function`; from its first call on the disk is full."""

  @functools.wraps(function)
  def call(*args, **kwargs):
    fill()
    return function(*args, **kwargs)

  return call


if __name__ == "__main__":
  place, attribute = owner_of(sys.argv[1])
  setattr(place, attribute, last(getattr(place, attribute)))
  sys.exit(main.main(sys.argv[2:]))
