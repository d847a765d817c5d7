"""Teacher banks on disk: what goes in comes out, or an error does."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

import runs
from kd_jax.data.bank import Bank, Header, Writer

ARRAYS = {
  "geometry": ((7,), "int16"),
  "values": ((2, 3), "float16"),
  "class": ((), "uint16"),
  "share": ((5,), "int8"),
}
CONSTANTS = {"scale": np.arange(3, dtype=np.float32), "mean": np.ones(2)}


def header(**changes):
  fields = {"records": 70, "crops": 2, "shard": 32, "arrays": ARRAYS}
  return Header(**{**fields, "about": {"teacher": "abc"}, **changes})


def content(number):
  """All that a pass holds, from a generator of its own."""
  rng = np.random.default_rng(number)
  return {
    name: rng.integers(-99, 99, (70, 2, *shape)).astype(dtype)
    for name, (shape, dtype) in ARRAYS.items()
  }


def fill(place, number, shards=range(3)):
  writer = Writer(str(place), header(), CONSTANTS)
  for shard in shards:
    rows = slice(32 * shard, 32 * shard + 32)
    writer.write(
      number, shard, {k: v[rows] for k, v in content(number).items()}
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  place = tmp_path_factory.mktemp("bank") / "whole"
  fill(place, 0)
  fill(place, 1)
  return place


@pytest.fixture
def copy(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / "copy")


def assert_reads(bank, passes, ids):
  found = bank.read(np.array(passes), np.array(ids))
  assert set(found) == set(ARRAYS)
  stored = [content(number) for number in range(max(passes) + 1)]
  for name, (_, dtype) in ARRAYS.items():
    assert found[name].dtype == dtype
    want = [stored[p][name][i] for p, i in zip(passes, ids, strict=True)]
    np.testing.assert_array_equal(found[name], want)


def test_reads_any_rows_of_any_pass_in_any_order(whole):
  bank = Bank(str(whole))
  assert bank.num_passes == 2 and bank.header.num_shards == 3
  assert bank.header.bytes_per_crop == 14 + 12 + 2 + 5
  assert_reads(bank, [1, 0, 1, 1, 0, 0], [69, 3, 0, 33, 3, 64])
  assert_reads(bank, [0] * 70, np.random.default_rng(0).permutation(70))
  assert_reads(bank, [1], [31])
  shard = bank.shard(1, 2)
  np.testing.assert_array_equal(shard["values"], content(1)["values"][64:])
  for name, array in CONSTANTS.items():
    np.testing.assert_array_equal(bank.constants[name], array)
  assert list(bank.damaged()) == []


def test_memory_takes_the_place_of_a_bucket():
  place = "memory://buckets/bank"
  fill(place, 0)
  bank = Bank(place)
  assert bank.num_passes == 1 and list(bank.damaged()) == []
  assert_reads(bank, [0, 0], [69, 1])


def test_a_pass_that_is_added_is_seen_by_new_readers_only(copy):
  bank = Bank(str(copy))
  assert bank.num_passes == 2
  fill(copy, 2, shards=(2, 0))
  assert Bank(str(copy)).num_passes == 2
  assert bank.counts() == {0: 3, 1: 3, 2: 2}
  fill(copy, 2, shards=(1,))
  again = pickle.loads(pickle.dumps(bank))  # as a worker process gets it
  assert (again.num_passes, Bank(str(copy)).num_passes) == (2, 3)
  assert again.fingerprint == bank.fingerprint == Bank(str(copy)).fingerprint
  assert_reads(again, [1, 2], [5, 6])


def test_zeros_are_stored_like_all_else(tmp_path):
  arrays = {"values": ((4,), "float32")}
  writer = Writer(str(tmp_path), header(records=5, arrays=arrays), {})
  writer.write(0, 0, {"values": np.zeros((5, 2, 4), np.float32)})
  bank = Bank(str(tmp_path))
  found = bank.read(np.zeros(2, int), np.array([4, 0]))["values"]
  assert found.shape == (2, 2, 4) and not found.any()
  # A file that vanishes from under a reader is no zeros.
  (tmp_path / "pass0000" / "values" / "c" / "0" / "0" / "0").unlink()
  with pytest.raises(ValueError, match="is damaged: .*missing"):
    bank.read(np.zeros(1, int), np.array([0]))


def test_what_does_not_fit_is_refused(copy):
  writer = Writer(str(copy), header(), CONSTANTS)
  assert writer.has(1, 2) and not writer.has(2, 0)
  arrays = {k: v[:32] for k, v in content(0).items()}
  with pytest.raises(ValueError, match="a shard holds .*; got"):
    writer.write(2, 0, {k: v[:31] for k, v in arrays.items()})
  with pytest.raises(ValueError, match="a shard holds .*; got"):
    writer.write(2, 0, {**arrays, "share": arrays["share"].astype(np.uint8)})
  others = (
    ({"about": {"teacher": "xyz"}}, "teacher is 'xyz' here and 'abc' in the"),
    ({"crops": 4}, "crops is 4 here and 2 in the bank"),
    ({"arrays": {"class": ((), "uint16")}}, "arrays is .* in the bank"),
  )
  for changes, message in others:
    with pytest.raises(ValueError, match=f"another bank at .*{message}"):
      Writer(str(copy), header(**changes), CONSTANTS)
  with pytest.raises(ValueError, match="constants is .* in the bank"):
    Writer(str(copy), header(), {"scale": np.zeros(3, np.float32)})
  with pytest.raises(ValueError, match="shard=40 records; it must be a posi"):
    header(shard=40)
  with pytest.raises(ValueError, match="70 records with 0 crops is empty"):
    header(crops=0)
  with pytest.raises(ValueError, match="no bank at .*configs/bank_kdep.py"):
    _ = Bank(str(copy / "pass0000")).header


def flip(path, place=100):
  data = bytearray(path.read_bytes())
  data[place] ^= 4
  path.write_bytes(data)


def truncate(path):
  os.truncate(path, path.stat().st_size // 2)


def edit(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))


SHARD, MANIFEST = "pass0001/values/c/1/0/0/0", "pass0001/shards/00001.json"
AGAIN = f"Delete {MANIFEST} and write the bank again"


@pytest.mark.parametrize(
  ("damage", "path", "message"),
  [
    (truncate, SHARD, rf"{SHARD} has \d+ bytes, not \d+. {AGAIN}"),
    (os.remove, SHARD, f"{SHARD} is missing. {AGAIN}"),
    (truncate, MANIFEST, f"{MANIFEST} is damaged. {AGAIN}"),
    (
      lambda p: edit(p, '"header": "', '"header": "0'),
      MANIFEST,
      "00001.json belongs to the bank 0.*, and this is",
    ),
    (
      lambda p: edit(p, '"abc"', '"xyz"'),
      "bank.json",
      "00000.json belongs to the bank .*bank.json or the shard was replaced",
    ),
  ],
  ids=("cut", "lost", "manifest cut", "other's manifest", "header edited"),
)
def test_damage_that_shows_before_anything_is_read(copy, damage, path, message):
  damage(copy / path)
  with pytest.raises(ValueError, match=message):
    _ = Bank(str(copy)).num_passes
  found = list(Bank(str(copy)).damaged())
  assert len(found) == (6 if path == "bank.json" else 1)
  spot = "pass 0, shard 0: " if path == "bank.json" else "pass 1, shard 1: "
  assert found[0].startswith(spot)


def test_a_flipped_bit_is_no_number(copy):
  flip(copy / SHARD)
  bank = Bank(str(copy))
  assert bank.num_passes == 2
  assert_reads(bank, [0, 1], [32, 0])
  with pytest.raises(ValueError, match=r"is damaged: .*verify=True"):
    bank.read(np.array([0, 1]), np.array([0, 33]))
  (line,) = bank.damaged()
  assert line.startswith("pass 1, shard 1: the bank") and "DATA_LOSS" in line


def test_files_swapped_between_passes_are_found(copy):
  shutil.copy(copy / SHARD.replace("pass0001", "pass0000"), copy / SHARD)
  (line,) = Bank(str(copy)).damaged()
  assert line == "pass 1, shard 1: its arrays are not those that were written"


def test_damaged_constants_and_header(copy):
  constants = copy / "constants.npz"
  with np.load(constants) as file:
    other = {**file, "scale": np.zeros(3, np.float32)}
  np.savez(constants, **other)
  with pytest.raises(ValueError, match="constants.npz is not the one that"):
    _ = Bank(str(copy)).constants
  truncate(constants)
  with pytest.raises(ValueError, match="constants.npz is damaged"):
    _ = Bank(str(copy)).constants
  (line,) = Bank(str(copy)).damaged()
  assert "constants.npz is damaged" in line
  constants.unlink()
  with pytest.raises(ValueError, match="constants.npz is damaged"):
    _ = Bank(str(copy)).constants
  for damage in (lambda p: edit(p, '"crops"', '"cops"'), truncate):
    damage(copy / "bank.json")
    with pytest.raises(ValueError, match="bank.json is damaged"):
      _ = Bank(str(copy)).header


def test_a_shard_counts_once_its_manifest_is_there(copy):
  (copy / MANIFEST).rename(copy / f"{MANIFEST}.__lock")  # left by a kill
  bank = Bank(str(copy))
  assert bank.num_passes == 1 and list(bank.damaged()) == []
  truncate(copy / SHARD)  # as is half a file that nobody vouches for
  assert Bank(str(copy)).num_passes == 1
  assert not Writer(str(copy), header(), CONSTANTS).has(1, 1)
  fill(copy, 1, shards=(1,))
  assert Bank(str(copy)).num_passes == 2
  assert_reads(Bank(str(copy)), [1], [40])


SCRIPT = """
import sys
from tests.data.bank import test_bank
test_bank.fill(sys.argv[1], 0, [int(shard) for shard in sys.argv[2:]])
"""


def test_two_processes_write_shards_of_one_pass(tmp_path, whole):
  place = tmp_path / "bank"
  paths = os.pathsep.join((str(runs.ROOT), str(runs.ROOT / "tests")))
  writers = [
    subprocess.Popen(
      [sys.executable, "-c", SCRIPT, str(place), *shards],
      env={**os.environ, "PYTHONPATH": paths},
      stderr=subprocess.PIPE,
      text=True,
    )
    for shards in (("0", "2"), ("1",))
  ]
  for writer in writers:
    status, error = runs.finish(writer)
    assert status == 0, error
  assert_same_files(place, whole, "pass0000")
  assert json.loads((place / "bank.json").read_text())["records"] == 70
  assert Bank(str(place)).num_passes == 1


def assert_same_files(ours, theirs, folder):
  paths = [p for p in (theirs / folder).rglob("*") if p.is_file()]
  assert len(paths) == 3 * (1 + len(ARRAYS)) + len(ARRAYS)
  for path in paths:
    mine = ours / path.relative_to(theirs)
    assert mine.read_bytes() == path.read_bytes(), mine
