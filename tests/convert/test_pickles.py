"""Pickles of arrays, written without code of NumPy's inside, read without."""

import collections
import os
import pickle
import pickletools

import numpy as np
import pytest

from kd_jax.convert import pickles

TREE = {
  "model": {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "b": np.float64([1.5, -2]),
    "count": np.array(7),
    "none": np.zeros((0, 3), np.float16),
    "flags": np.array([True, False]),
    "big": np.arange(3, dtype=">i2"),
    "turned": np.arange(6.0).reshape(2, 3).T,
  },
  "__author__": "me",
  "matching_heuristics": True,
  "more": [1, 2.5, None, ("x", b"y")],
}


def same(found, wanted):
  assert type(found) is type(wanted)
  if isinstance(wanted, dict):
    assert list(found) == list(wanted)
    for key, value in wanted.items():
      same(found[key], value)
  elif isinstance(wanted, np.ndarray):
    assert found.dtype == wanted.dtype and found.flags.writeable
    np.testing.assert_array_equal(found, wanted)
  else:
    assert found == wanted


def test_written_for_any_python_and_numpy(tmp_path):
  data = pickles.dumps(TREE)
  called = {
    argument
    for code, argument, _ in pickletools.genops(data)
    if code.name in ("GLOBAL", "SHORT_BINUNICODE", "BINUNICODE")
  }
  assert not any("multiarray" in name or "_core" in name for name in called)
  same(pickle.loads(data), TREE)
  (tmp_path / "x.pkl").write_bytes(data)
  same(pickles.read(tmp_path / "x.pkl"), TREE)


@pytest.mark.parametrize("protocol", range(6))
def test_what_numpy_writes_is_read(tmp_path, protocol):
  tree = {**TREE, "one": np.float32(3), "sorted": collections.OrderedDict(a=1)}
  (tmp_path / "x.pkl").write_bytes(pickle.dumps(tree, protocol))
  found = pickles.read(tmp_path / "x.pkl")
  assert found.pop("sorted") == {"a": 1}
  one = found.pop("one")
  assert one == 3 and one.dtype == np.float32
  same(found, TREE)


class Evil:
  def __reduce__(self):
    return os.system, ("touch harmed",)


def crafted(kind, data):
  """An array of a type that its bytes are not safe for."""

  class Array:
    def __reduce__(self):
      return np.ndarray, ((1,), kind, data)

  return Array()


@pytest.mark.parametrize(
  ("value", "said"),
  [
    ({"model": Evil()}, "posix.system"),
    ({"model": np.array([Evil()], object)}, "posix.system"),
    ({"model": np.array([{}], object)}, "an array of objects"),
    ({"model": np.array([[1, "x"]], object)}, "an array of objects"),
    ({"a": crafted("O", b"A" * 8)}, "an array of the type 'O'"),
    ({"a": crafted("<f4", b"A" * 12)}, r"an array of 3 and not \(1,\)"),
    ({"a": crafted("V4", b"A" * 4)}, "an array of the type 'V4'"),
    ({"a": np.array(["x"])}, "an array of the type 'U1'"),
    ({"a": {1, 2}}, "a set"),
    ({"a": 1j}, "builtins.complex"),
    ({"a": np.dtype("f4")}, "a _Kind"),
    ({"a": np.ndarray}, "a type"),
  ],
)
def test_refused(tmp_path, monkeypatch, value, said):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "x.pkl").write_bytes(pickle.dumps(value))
  with pytest.raises(ValueError, match=f"x.pkl cannot be read: .*{said}; only"):
    pickles.read(tmp_path / "x.pkl")
  assert not (tmp_path / "harmed").exists()


def test_damaged(tmp_path):
  path, data = tmp_path / "x.pkl", pickles.dumps(TREE)
  for cut in (0, 1, 50, len(data) // 2, len(data) - 1):
    path.write_bytes(data[:cut])
    with pytest.raises(ValueError, match="no whole pickle"):
      pickles.read(path)
  path.write_bytes(pickle.dumps([1]))
  with pytest.raises(ValueError, match="holds a list, no dictionary"):
    pickles.read(path)
  with pytest.raises(ValueError, match=r"FileNotFoundError.*is not there"):
    pickles.read(tmp_path / "nosuch.pkl")
