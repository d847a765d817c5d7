"""A workdir has one owner at a time, and nobody once that one is killed."""

import errno
import fcntl
import json
import os
import re
import signal
import socket
import time

import pytest

import runs
from kd_jax import lock, main, workdir

CONFIG = {"task": "pretrain", "seed": 0}


def files(where):
  """{path: bytes, and when they were written} of all that is there."""
  return {
    str(path.relative_to(where)): (path.read_bytes(), path.stat().st_mtime_ns)
    for path in where.rglob("*")
    if path.is_file()
  }


def test_a_second_command_touches_nothing_and_the_next_one_goes_on(
  tmp_path, capsys
):
  where = tmp_path / "run"
  fields = [f"teacher.weights={runs.save_teacher(tmp_path / 'teacher')}"]
  first = runs.start(where, *fields)
  while first.poll() is None and not runs.checkpoints(where):
    time.sleep(0.001)
  first.send_signal(signal.SIGSTOP)  # as long as it takes to look
  try:
    before = files(where)
    assert len(before) > 10 and runs.checkpoints(where)
    assert main.main(runs.arguments(where, *fields)) == 1
    assert files(where) == before
  finally:
    first.kill()
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and said.startswith("error: the workdir ")
  assert f"{where} is in use by process {first.pid} on " in said
  assert f"on {socket.gethostname()}, since 20" in said
  assert f"-m kd_jax.main --config {runs.CONFIG} --workdir {where}" in said
  assert f"'kill {first.pid}', or give this one another --workdir." in said
  status, _ = runs.finish(first)
  assert status == -signal.SIGKILL
  found = runs.here(where, *fields)
  assert "continuing after step" in found and "damaged" not in found
  assert runs.checkpoints(where)[-1] == 12


def test_folders_in_folders_and_the_same_process_again(tmp_path):
  for _ in range(2):
    with workdir.claimed(tmp_path, CONFIG):
      with workdir.claimed(tmp_path / "teacher", {**CONFIG, "seed": 1}):
        pass
      with workdir.claimed(tmp_path / "teacher", {**CONFIG, "seed": 2}):
        pass
      with (
        pytest.raises(ValueError, match=f"in use by process {os.getpid()} on"),
        workdir.claimed(tmp_path, CONFIG),
      ):
        pass
  with (
    pytest.raises(KeyError),
    workdir.claimed(tmp_path, CONFIG),
  ):
    raise KeyError
  with workdir.claimed(tmp_path, CONFIG):
    pass


def test_a_lock_is_no_result_and_a_note_without_one_owns_nothing(tmp_path):
  note = {"pid": 1, "host": "away", "since": "1999", "command": "sleep 9"}
  (tmp_path / lock.FILE).write_text(json.dumps(note))
  with workdir.claimed(tmp_path, CONFIG):
    assert json.loads((tmp_path / lock.FILE).read_text())["pid"] == os.getpid()
  with workdir.claimed(tmp_path, {**CONFIG, "seed": 1}):
    pass  # nothing but the lock was there, so the folder is free
  config = json.loads((tmp_path / "config.json").read_text())
  assert config["seed"] == 1


def test_what_a_transfer_is_judged_by_stays_as_it_was(tmp_path):
  """A pre-training may be looked at more often, a finished run may not."""
  judged = {"every": 5, "limit": 0, "batch_size": 8}
  plain, moved = ({"eval": {**judged, **new}} for new in ({}, {"limit": 9}))
  result = tmp_path / "trials" / "final" / "result.json"
  result.parent.mkdir(parents=True)
  result.touch()

  def claim(config):
    with workdir.claimed(tmp_path, config):
      pass

  claim(plain)
  claim(moved)
  (tmp_path / "config.json").unlink()
  for config in (plain, moved):
    config["transfer"] = {"shots": 1}
  claim(plain)
  with pytest.raises(
    ValueError, match=r"\['eval.limit'\] differ .*was 0, is 9"
  ):
    claim(moved)
  claim({**plain, "eval": {**judged, "batch_size": 4}})


def test_an_owner_that_has_not_said_its_name_yet(tmp_path):
  with workdir.claimed(tmp_path, CONFIG):
    (tmp_path / lock.FILE).write_text("")
    with (
      pytest.raises(ValueError, match="in use by another command. Wait for"),
      workdir.claimed(tmp_path, CONFIG),
    ):
      pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_file_systems_without_locks_are_named_and_used(
  number, tmp_path, monkeypatch, caplog
):
  def flock(*_):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, "flock", flock)
  with caplog.at_level("WARNING"), workdir.claimed(tmp_path, CONFIG):
    pass
  (line,) = [record.getMessage() for record in caplog.records]
  assert re.search(f"{tmp_path} has no locks .{os.strerror(number)}", line)
  assert "start only one at a time" in line
  assert json.loads((tmp_path / "config.json").read_text()) == CONFIG
