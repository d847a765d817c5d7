"""A folder and its bucket."""

import os

import pytest

from kd_jax.buckets import spool, store

URL = "memory://bucket/runs/one"


@pytest.fixture(autouse=True)
def empty():
  store.delete("memory://bucket", store.keys("memory://bucket"))


def test_a_path_of_this_machine_is_itself(tmp_path):
  with spool.mounted(tmp_path) as folder:
    assert folder == tmp_path and spool.address(folder) == str(tmp_path)
    assert spool.keys(folder) == []
    spool.push(folder)
    spool.pull(folder)


def test_files_go_up_once_and_oldest_first(monkeypatch):
  written = []
  plain = store.write

  def write(url, key, value, **how):
    written.append(key)
    return plain(url, key, value, **how)

  monkeypatch.setattr(store, "write", write)
  with spool.mounted(URL + "/") as folder:
    assert folder.name == "one"
    assert spool.address(folder / "a" / "b") == f"{URL}/a/b"
    (folder / "student").mkdir()
    for age, name in enumerate(["result.json", "student/w", "metrics.jsonl"]):
      (folder / name).write_text(name)
      os.utime(folder / name, (1000 - age, 1000 - age))
    (folder / "half.123.tmp").touch()
    (folder / ".lock").touch()
    spool.push(folder / "student")
    assert written == ["metrics.jsonl", "student/w", "result.json"]
    with (folder / "metrics.jsonl").open("a") as file:
      file.write("\n")
    spool.push(folder)
    spool.push(folder)
    assert written[3:] == ["metrics.jsonl"]
  assert store.read(URL, "metrics.jsonl") == b"metrics.jsonl\n"
  assert not folder.exists()


def test_only_what_a_run_looks_at_comes_down():
  wanted = ["config.json", "trials/a/metrics.jsonl", "bankrupt/x"]
  others = [
    ".lock",
    "checkpoints/3/x",
    "trials/a/checkpoints/3/x",
    "events.out.tfevents.1",
    "bank/bank.json",
    "bank/pass0000/values/c/0",
  ]
  for name in wanted + others:
    store.write(URL, name, name.encode())
  with spool.mounted(URL) as folder:
    assert not [*folder.rglob("*")]
    spool.pull(folder / "trials")
    spool.pull(folder)
    found = [p for p in folder.rglob("*") if p.is_file()]
    assert {p.relative_to(folder).as_posix() for p in found} == {*wanted}
    assert (folder / "config.json").read_text() == "config.json"
    assert spool.keys(folder / "bank") == ["bank.json", "pass0000/values/c/0"]
    store.write(URL, "config.json", b"newer")
    (folder / "bankrupt" / "x").write_text("mine")
    spool.pull(folder)
    assert (folder / "config.json").read_text() == "newer"
    assert store.read(URL, "bankrupt/x") == b"mine"
