"""One owner at a time, also where there are no locks."""

import json
import subprocess
import sys
import time

import pytest

import runs
from kd_jax import lock, workdir
from kd_jax.buckets import lease, spool, store

NOTE = {"pid": 1, "host": "here", "since": "2026", "command": "sleep 9"}
SECONDS = 1.2


@pytest.fixture(autouse=True)
def short(monkeypatch):
  monkeypatch.setenv(lease.SECONDS, str(SECONDS))


def test_an_owner_that_lives_is_found_out_and_leaves_nothing(s3, caplog):
  url = "s3://bucket/lease"
  start = time.monotonic()
  with lease.held(url, NOTE):
    assert time.monotonic() - start < 1  # nobody to wait for
    before = json.loads(store.read(url, lease.FILE))
    with pytest.raises(lease.Lost) as lost, lease.held(url, {"pid": 2}):
      pass
    assert lost.value.args[0]["pid"] == 1 == before["pid"]
    assert lost.value.args[0]["changes"] > before["changes"]
  assert store.keys(url) == []
  assert "in use by process 1 on here: waiting up to 1 s" in caplog.text


def test_an_owner_that_was_killed_is_waited_for_no_longer(s3):
  url = "s3://bucket/killed"
  code = (
    "import sys, time; from kd_jax.buckets import lease\n"
    "with lease.held(sys.argv[1], {'pid': 7}): print('.', flush=True);"
    "time.sleep(99)"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", code, url], stdout=subprocess.PIPE, cwd=runs.ROOT
  )
  assert process.stdout.read(1) == b"."
  process.kill()
  process.communicate()
  start = time.monotonic()
  with lease.held(url, NOTE):
    assert SECONDS <= time.monotonic() - start < 4 * SECONDS
    assert json.loads(store.read(url, lease.FILE))["pid"] == 1
  assert store.keys(url) == []


def test_a_request_that_is_repeated_is_no_other_owner(gate):
  """The answer to the first try is lost, and what it wrote is there."""
  url, faults = "s3://bucket/repeated", ["lost"]
  gate.fault = lambda method, _: (
    faults.pop() if method == "PUT" and faults else None
  )
  with lease.held(url, NOTE):
    assert json.loads(store.read(url, lease.FILE))["changes"] == 1
  assert not faults and store.keys(url) == []
  assert [method for method, _ in gate.seen].count("PUT") >= 2


def test_workdirs_say_who_owns_them():
  url = "memory://bucket/claimed"
  config = {"task": "pretrain", "seed": 0}
  with spool.mounted(url) as here, spool.mounted(url) as there:
    with workdir.claimed(here, config):
      assert store.keys(url) == [lock.FILE, "config.json", "versions.json"]
      with workdir.claimed(here / "part", config):  # goes with the whole
        pass
      with (
        pytest.raises(ValueError, match=f"workdir {url} is in use by process"),
        workdir.claimed(there, config),
      ):
        pass
    store.write(url, "checkpoints/3/x", b"")
    with (
      pytest.raises(ValueError, match=f"^{url} holds another .*seed was 0, is"),
      workdir.claimed(there, {**config, "seed": 1}),
    ):
      pass
    assert lock.FILE not in store.keys(url)
  with (
    pytest.raises(ValueError, match="was a URL; in Python, give"),
    workdir.claimed(there.__class__("s3://bucket/x"), config),
  ):
    pass


@pytest.mark.parametrize("text", ["soon", "0", "nan"])
def test_a_lease_is_a_number_of_seconds(text, monkeypatch):
  monkeypatch.setenv(lease.SECONDS, text)
  with (
    pytest.raises(ValueError, match=f"KD_JAX_LEASE is '{text}'; it must be"),
    lease.held("memory://bucket/x", NOTE),
  ):
    pass


def test_who_was_silent_asks_before_it_writes(monkeypatch):
  """A process that was stopped: its first thread to go on is no matter."""
  url, told = "memory://bucket/silent", []
  monkeypatch.setenv(lease.SECONDS, "600")
  monkeypatch.setattr(lease, "_end", lambda *args: told.append(args))
  with spool.mounted(url) as here, lease.held(url, NOTE):
    (here / "a").write_text("ours")
    spool.push(here)
    note = json.loads(store.read(url, lease.FILE))
    assert store.read(url, "a") == b"ours" and note["changes"] == 1
    store.write(url, lease.FILE, b'{"pid": 2, "host": "there"}')
    (here / "a").write_text("later")
    spool.push(here)
    assert not told  # nobody takes over from who spoke just now
    lease._OWNED[0]._renewed -= 301
    (here / "a").write_text("too late")
    spool.push(here)
    assert told == [(url, {"pid": 2, "host": "there"})]
  assert not lease._OWNED
