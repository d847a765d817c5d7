import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from absl import logging

from kd_jax.data.formats import folder_listing, folder_walk
from kd_jax.data.sources import folder

RACE = """
import sys
from kd_jax.data.formats import folder_listing
print(flush=True)
input()
found = folder_listing.find(sys.argv[1])
print(len(found), found.fingerprint, found.place)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  path = tmp_path_factory.mktemp("cache")
  monkeypatch.setenv("KD_JAX_CACHE", str(path))
  return path


@pytest.fixture
def walks(monkeypatch):
  """The directories that are listed, in that order."""
  seen = []
  names = folder_walk._names

  def spy(root, path):
    seen.append(os.fsdecode(path))
    return names(root, path)

  monkeypatch.setattr(folder_walk, "_names", spy)
  return seen


def settle(root, ago=3600):
  """As if nothing had been done there for an hour."""
  for place, _, _ in os.walk(root):
    at = os.stat(place).st_mtime - ago
    os.utime(place, (at, at))


def make(root, *names):
  for i, name in enumerate(names):
    path = os.path.join(os.fsencode(root), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
      file.write(b"x" * i)
  settle(root)
  return str(root)


def test_sorted_by_path_at_any_depth(tmp_path):
  deep = "/".join("abcdefgh" * 40) + "/z.png"
  names = [
    "b/1.jpg",
    "b.png",
    "b-c/1.JPG",
    "b/1/2.TIF",
    "B.gif",
    "a/b.bmp/x.tiff",
  ]
  names += ["b/1.jpeg/3.WebP", deep, "ü/é.png", "日/本.png", "a b/c\nd.png"]
  dull = ["b/1.txt", ".d/1.png", "b/.1.png", "c/1.jpg.part"]
  found = folder_listing.find(make(tmp_path, *names, *dull))
  assert [path for path, _ in found.items(range(99)[: len(found)])] == sorted(
    map(os.fsencode, names)
  )
  for row, (path, size) in enumerate(found.items(range(len(found)))):
    assert names.index(os.fsdecode(path)) == size == found.sizes[row]
    assert found.path(row) == os.fsdecode(path)
    top = found.tops[row]
    parts = os.fsdecode(path).split("/")
    assert (found.top_names[top] if top >= 0 else None) == (
      parts[0] if parts[1:] else None
    )
  some = np.array([7, 0, 3])
  assert [found.path(i) for i in some] == [
    os.fsdecode(path) for path, _ in found.items(some)
  ]


def test_names_of_any_bytes(tmp_path):
  names = [b"\xff\xfe/\x80.jpg", b"ok/\xc3(.jpg", b"ok/a.jpg"]
  source = folder.Source(make(tmp_path, *names))
  found = [os.fsencode(name) for name in source.ids()]
  assert found == sorted(names)
  assert [len(record["image"]) for record in source] == [2, 1, 0]
  assert os.fsencode(source.class_names[1]) == b"\xff\xfe"
  assert len(folder.Source(str(tmp_path)).fingerprint) == 16


def test_listed_once_until_a_directory_changes(tmp_path, walks):
  root = make(tmp_path / "r", "a/1.png", "a/b/2.png", "c/3.png")
  first = folder_listing.find(root)
  assert walks == ["", "a/", "a/b/", "c/"]
  again = folder_listing.find(str(tmp_path / "r/../r/"))
  assert again == first and len(walks) == 4
  prints = {first.fingerprint}
  for change in (
    lambda: (tmp_path / "r/a/b/4.png").write_bytes(b""),
    lambda: (tmp_path / "r/a/1.png").rename(tmp_path / "r/a/5.png"),
    lambda: (tmp_path / "r/c/3.png").unlink(),
    lambda: (tmp_path / "r/c").rmdir(),
  ):
    before = len(walks)
    change()
    prints.add(folder_listing.find(root).fingerprint)
    assert len(walks) > before
    settle(root, 1000)
    folder_listing.find(root)
  assert len(prints) == 4  # the empty directory held nothing
  shelf = os.listdir(folder_listing.shelf(root))
  assert len(shelf) == folder_listing._KEPT  # older ones are gone


def test_a_directory_that_just_changed_is_listed_again(tmp_path, walks):
  root = make(tmp_path, "1.png")
  os.utime(root)
  assert len(folder_listing.find(root)) == 1
  stamp = os.stat(root).st_mtime_ns
  (tmp_path / "2.png").write_bytes(b"")
  os.utime(root, ns=(stamp, stamp))  # a clock too coarse to tell
  assert len(folder_listing.find(root)) == 2


def test_damaged_listings_are_made_again(tmp_path, walks):
  root = make(tmp_path, "a/1.png", "b/2.png")
  place = folder_listing.find(root).place
  for name in sorted(os.listdir(place)):
    path = os.path.join(place, name)
    with open(path, "rb") as file:
      whole = file.read()
    for bad in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), None):
      os.remove(path)
      if bad is not None:
        with open(path, "wb") as file:
          file.write(bad)
      walks.clear()
      found = folder_listing.find(root)
      assert walks == ["", "a/", "b/"]
      assert (found.place, found.path(1)) == (place, "b/2.png")
  walks.clear()
  folder_listing.find(root)
  assert not walks


def test_a_cache_that_cannot_be_written_to(tmp_path, walks, monkeypatch):
  root = make(tmp_path / "r", "1.png", "2.png")
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path / "file"))
  said = []
  monkeypatch.setattr(logging, "warning", lambda *args: said.append(args))
  first = folder.Source(root)
  second = folder.Source(root, "all[1:]")
  assert walks == [""]  # kept in this process all the same
  assert len(said) == 1
  assert "set KD_JAX_CACHE" in said[0][0] and "file" in str(said[0][1])
  assert list(pickle.loads(pickle.dumps(second)).ids()) == ["2.png"]
  assert len(first) == 2


def test_links_in_circles(tmp_path, monkeypatch):
  make(tmp_path / "r", "a/1.png", "b/2.png")
  make(tmp_path / "out", "3.png", "r2/4.png")
  links = {"r/a/up": "..", "r/a/self": ".", "r/a/b": "../b", "r/b/a": "../a"}
  links |= {"r/out": "../out", "r/b/top": "../..", "r/b/me": "me"}
  links |= {"r/b/file.png": "../a/1.png"}
  for link, target in links.items():
    (tmp_path / link).symlink_to(target)
  said = []
  monkeypatch.setattr(
    folder_walk.logging, "warning", lambda text, path: said.append(path)
  )
  found = folder_listing.find(str(tmp_path / "r"))
  assert [found.path(row) for row in range(len(found))] == [
    "a/1.png",
    "a/b/2.png",
    "a/b/file.png",
    "b/2.png",
    "b/a/1.png",
    "b/file.png",
    "out/3.png",
    "out/r2/4.png",
  ]
  assert str(tmp_path / "r/a/up") in said and len(said) == 8


def test_two_processes_at_once(tmp_path, cache):
  names = [f"{i % 7}/{i}.png" for i in range(3000)]
  root = make(tmp_path, *names)
  python = [sys.executable, "-c", RACE, root]
  pipe = subprocess.PIPE
  pair = [
    subprocess.Popen(python, stdin=pipe, stdout=pipe, text=True) for _ in "ab"
  ]
  for process in pair:
    process.stdout.readline()  # imported
  for process in pair:
    process.stdin.write("\n")
    process.stdin.flush()
  out = [process.communicate(timeout=60)[0] for process in pair]
  assert out[0] == out[1] and out[0].startswith("3000 ")
  home = folder_listing.shelf(root)
  assert [os.path.join(home, name) for name in os.listdir(home)] == [
    out[0].split()[2]
  ]
  found = folder_listing.find(root)
  assert f"{len(found)} {found.fingerprint} {found.place}\n" == out[0]


def test_pickles_small_and_reads_the_same_listing(tmp_path):
  names = [f"{i % 3}/{i}.png" for i in range(2000)]
  root = make(tmp_path / "r", *names)
  source = folder.Source(root, percent=50.0, seed=1)
  assert source[3]["label"] == 0 and len(source.fingerprint) == 16
  dumped = pickle.dumps(source)
  assert len(dumped) < 1000
  (tmp_path / "r/0/0a.png").write_bytes(b"")
  again = pickle.loads(dumped)
  assert list(again.ids()) == list(source.ids())  # not the tree of now
  assert len(folder.Source(root)) == 2001
  place = source._index.place
  os.rename(place, place + "gone")
  with pytest.raises(ValueError, match=f"{place} vanished while it was in use"):
    len(pickle.loads(dumped))


def test_directories_that_cannot_be_listed(tmp_path, monkeypatch):
  root = make(tmp_path, "a/1.png", "secret/2.png")
  scandir = os.scandir

  def refuse(path):
    if os.fsencode(path).endswith(b"secret/"):
      raise PermissionError(13, "Permission denied")
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refuse)
  with pytest.raises(ValueError, match="secret/': Permission denied; allow it"):
    folder_listing.find(root)


def test_stored_as_plain_arrays(tmp_path, cache):
  found = folder_listing.find(make(tmp_path, "a/1.png", "b/22.png"))
  assert found.place.startswith(str(cache / "index") + "/")
  paths = np.load(f"{found.place}/paths.npy")
  assert paths.tobytes() == b"a/1.pngb/22.png"
  ends = np.load(f"{found.place}/ends.npy")
  assert ends.tolist() == [7, 15] and ends.dtype == np.int64
  assert isinstance(found.sizes, np.memmap)
  with open(f"{found.place}/times.json") as file:
    assert list(json.load(file)) == ["", "a/", "b/"]
