"""Weights in pickles of NumPy arrays, as Detectron2 has them, without code.

A pickle is a program that may call anything. What is written here calls
`numpy.ndarray` and `bytearray` only, which every version of NumPy has; what is
read may name NumPy's arrays, and gets stand-ins of ours in their place, whose
bytes become arrays afterwards.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

_PROTOCOL = 4  # Python 3.4 and later
_NUMBERS = "?bBhHiIlLqQefd"
_ORDERS: Mapping[str, Literal["<", ">", "=", "|"]] = {
  "<": "<",
  ">": ">",
  "=": "=",
  "|": "|",
}
_PLAIN = (str, bytes, int, float, bool, type(None))


class _Writer(pickle.Pickler):
  """Arrays as a call of the public constructor with their bytes."""

  def reducer_override(self, obj: Any) -> Any:
    if not isinstance(obj, np.ndarray):
      return NotImplemented
    data = bytearray(obj.tobytes())  # bytes would be a read-only array
    return np.ndarray, (obj.shape, obj.dtype.str, data)


def dumps(tree: Mapping[str, Any]) -> bytes:
  """A pickle of dictionaries, strings, numbers and numeric arrays."""
  stream = io.BytesIO()
  _Writer(stream, _PROTOCOL).dump(dict(tree))
  return stream.getvalue()


def read(path: str | Path) -> dict[str, Any]:
  """What a pickle of NumPy arrays holds; runs no code of the file.

  Args:
    path: the file.

  Returns:
    Its dictionary; lists, tuples and dictionaries may be nested.

  Raises:
    ValueError: there is no such file, it is damaged, or it holds anything but
      numeric arrays, containers, strings and numbers.
  """
  try:
    with open(path, "rb") as stream:
      found = _Reader(stream, encoding="latin1").load()
    tree = _arrays(found)
  except _RefusedError as error:
    raise ValueError(
      f"{path} cannot be read: it holds {error}; only dictionaries of NumPy "
      "arrays are read from pickles"
    ) from error
  # Damage shows as nearly any error.
  except Exception as error:
    raise ValueError(
      f"{path} cannot be read ({type(error).__name__}): it is not there, or "
      "no whole pickle"
    ) from error
  if not isinstance(tree, dict):
    raise ValueError(f"{path} holds a {type(tree).__name__}, no dictionary")
  return tree


class _RefusedError(Exception):
  """What a file holds and may not."""


class _Kind:
  """Stands for `numpy.dtype`; only its code and byte order are believed."""

  def __init__(self, code: str | _Kind, *flags: bool) -> None:
    del flags
    self.order, self.code = "=", code.code if isinstance(code, _Kind) else code

  def __setstate__(self, state: tuple[Any, ...]) -> None:
    self.order = state[1]

  def dtype(self) -> np.dtype[Any]:
    """The real thing, of numbers only."""
    code = str(self.code).lstrip("<>=|")
    known = code in _NUMBERS or code[:1] in ("i", "u", "f", "b")
    if not known or not code[1:].isdigit() and code[1:]:
      raise _RefusedError(f"an array of the type {self.code!r}")
    order = _ORDERS.get(str(self.code)[:1]) or _ORDERS.get(self.order)
    if order is None:
      raise _RefusedError(f"an array of the byte order {self.order!r}")
    return np.dtype(code).newbyteorder(order)


class _Array:
  """Stands for `numpy.ndarray`, however it was made."""

  def __init__(self, shape: Any = (0,), kind: Any = "u1", data: Any = b""):
    self.shape, self.kind, self.data, self.fortran = shape, kind, data, False

  def __setstate__(self, state: tuple[Any, ...]) -> None:
    _, self.shape, self.kind, self.fortran, self.data = state

  def array(self) -> np.ndarray:
    """The real thing; a writable copy."""
    kind = self.kind if isinstance(self.kind, _Kind) else _Kind(self.kind)
    data = self.data
    data = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(data, bytes | bytearray):
      raise _RefusedError("an array of objects")
    flat = np.frombuffer(data, kind.dtype())
    if math.prod(self.shape) != flat.size:
      raise _RefusedError(f"an array of {flat.size} and not {self.shape}")
    return flat.reshape(self.shape, order="F" if self.fortran else "C").copy()


def _remade(cls: type, shape: Any, code: Any) -> _Array:
  """Stands for NumPy's `_reconstruct`."""
  del cls, shape, code
  return _Array()


def _from_buffer(data: Any, kind: Any, shape: Any, order: str) -> _Array:
  """Stands for NumPy's `_frombuffer`."""
  array = _Array(shape, kind, data)
  array.fortran = order == "F"
  return array


def _scalar(kind: Any, data: Any) -> _Array:
  """Stands for NumPy's `scalar`."""
  return _Array((), kind, data)


def _encoded(text: str, encoding: str) -> bytes:
  """Stands for `_codecs.encode`, by which old protocols write bytes."""
  if encoding != "latin1":
    raise _RefusedError(f"text to be encoded as {encoding!r}")
  return text.encode("latin1")


def _empty() -> bytes:
  """Stands for `bytes`, which old protocols call for no bytes."""
  return b""


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
  ("builtins", "bytearray"): bytearray,
  ("__builtin__", "bytearray"): bytearray,  # Python 2 called it so
  ("__builtin__", "bytes"): _empty,
  ("collections", "OrderedDict"): collections.OrderedDict,
  ("_codecs", "encode"): _encoded,
  ("numpy", "ndarray"): _Array,
  ("numpy", "dtype"): _Kind,
  **{
    (f"numpy.{core}.{module}", name): stand_in
    for core in ("core", "_core")
    for module, name, stand_in in (
      ("multiarray", "_reconstruct", _remade),
      ("multiarray", "scalar", _scalar),
      ("numeric", "_frombuffer", _from_buffer),
    )
  },
}


class _Reader(pickle.Unpickler):
  """Knows the names of `_ALLOWED` and no others."""

  def find_class(self, module: str, name: str) -> Callable[..., Any]:
    found = _ALLOWED.get((module, name))
    if found is None:
      raise _RefusedError(f"{module}.{name}")
    return found

  def persistent_load(self, pid: Any) -> Any:
    raise _RefusedError(f"a reference to {pid!r}")


def _arrays(value: Any) -> Any:
  """The same with arrays in place of their stand-ins."""
  if isinstance(value, _Array):
    return value.array()
  if isinstance(value, dict):
    return {k: _arrays(v) for k, v in value.items()}
  if type(value) in (list, tuple):
    return type(value)(map(_arrays, value))
  if type(value) in _PLAIN:
    return value
  raise _RefusedError(f"a {type(value).__name__}")
