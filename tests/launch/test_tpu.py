"""launch/tpu.sh, with a stand-in for gcloud that runs what it is told to."""

import shlex
import signal
import subprocess

import pytest

import case
import runs
import stand_in_state
import stand_ins
from case import Cloud

WHERE = ("try", "zone-a", "v5litepod-8")
POD = ("try", "zone-a", "v5litepod-16")
BUCKET = ("--workdir", "gs://bucket/run")
PREFIX = "launch/tpu.sh: "


@pytest.fixture
def cloud(tmp_path, monkeypatch):
  cloud = Cloud(tmp_path).check_out()
  monkeypatch.setattr(stand_in_state, "FOLDER", cloud.state)
  return cloud


def fake_run(cloud, text):
  """What stands for the run itself, on every worker."""
  (cloud.binaries / "remote-python").write_text(
    f"#!/usr/bin/env bash\n{text}\n"
  )


def last(error):
  return error.splitlines()[-1]


def test_a_run_from_nothing_to_the_end(cloud):
  fake_run(cloud, 'echo "trained $*"; echo to stderr >&2')
  status, out, error = cloud.run(
    "tpu.sh", "--delete", *WHERE, "c.py", "--config.a='x y'"
  )
  assert status == 0, error
  assert out == "trained -m kd_jax.main --config c.py --config.a='x y'\n" + (
    "to stderr\n"
  )
  assert f"{PREFIX}finished" in error
  assert cloud.verbs("gcloud", 4) == [
    *("describe", "create", "describe", "scp", "ssh", "ssh", "ssh", "delete")
  ]
  (made,) = cloud.calls("gcloud", "compute", "tpus", "tpu-vm", "create")
  assert "--version=v2-alpha-tpuv5-lite" in made and "--spot" not in made
  assert not list(cloud.state.glob("tpu-vm/*"))


def test_dry_run_prints_what_it_would_call_and_calls_nothing(cloud):
  words = ("--spot", "--delete", "--project", "p", "--create", "--network=n")
  words += (*POD, "c.py", *BUCKET)
  status, out, error = cloud.run("tpu.sh", "--dry-run", *words)
  assert status == 0 and error == ""
  assert not (cloud.state / "calls.jsonl").exists()
  printed = [shlex.split(line) for line in out.splitlines()]
  fake_run(cloud, "true")
  status, _, error = cloud.run("tpu.sh", *words)
  assert status == 0, error
  called = [call for call in cloud.calls("gcloud") if "--project=p" in call]
  twice = called.pop(2)  # looks again at what it has made
  assert twice == called[0]
  assert [line for line in printed if line[0] != "git"] == called
  (archive,) = (line for line in printed if line[0] == "git")
  assert archive[1] == "archive"


@pytest.mark.slow
def test_every_printed_line_is_a_command_that_runs(cloud):
  """Pasted into a shell one by one, they train."""
  fake_run(cloud, 'echo "on worker $KD_JAX_PROCESS: $*"')
  cloud.put("workers.json", 2)
  _, out, _ = cloud.run(
    "tpu.sh",
    "--dry-run",
    "--delete",
    *POD,
    "c.py",
    *BUCKET,
    "--config.a=(1, 2)",
  )
  told = []
  for line in out.splitlines():
    done = subprocess.run(
      ["bash", "-c", line],
      cwd=cloud.checkout,
      env=cloud.env,
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0 or "NOT_FOUND" in done.stderr, done.stderr
    told += done.stdout.splitlines()
  assert told == [
    "on worker 0: -m kd_jax.main --config c.py --workdir gs://bucket/run "
    "--config.a=(1, 2)"
  ]


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (("try", "zone-a"), "got 'try zone-a'; usage: launch/tpu.sh"),
    (("--fast", *WHERE, "c.py"), "there is no option --fast"),
    (("--restarts",), "--restarts needs a value"),
    (("--restarts", "x", *WHERE, "c.py"), "--restarts is 'x'"),
    (
      ("try", "zone-a", "h100-8", "c.py"),
      "no accelerator h100-8; there are v2",
    ),
    (
      ("--spot", *WHERE, "c.py"),
      "with --spot the disk of the TPU VM, and runs/... on it, may be lost at "
      "any time; add --workdir gs://BUCKET/FOLDER after the config",
    ),
    (("--preemptible", *WHERE, "c.py", "--workdir=/w"), "and /w on it, may be"),
    ((*POD, "c.py"), "v5litepod-16 has several hosts, which must share the"),
  ],
)
def test_usage(cloud, words, message):
  status, out, error = cloud.run("tpu.sh", *words)
  assert (status, out) == (2, "") and error.count("\n") == 1
  assert error.startswith(PREFIX) and message in error


def test_help(cloud):
  status, out, _ = cloud.run("tpu.sh", "--help")
  assert status == 0 and "--restarts N" in out and "set -u" not in out


def test_what_is_not_committed_is_left_out_and_said(cloud):
  (cloud.checkout / "requirements.txt").write_text("new")
  _, _, error = cloud.run("tpu.sh", "--dry-run", *WHERE, "c.py")
  assert error.startswith(f"{PREFIX}uncommitted changes are left out; commit ")


@pytest.mark.parametrize(
  ("reason", "message"),
  [
    ("quota", "has been exceeded. Limit: 0 in zone z. Ask for more quota"),
    ("capacity", "you can try in another zone. Try --queued, or name another"),
    (
      "auth",
      "no active account selected. Run gcloud auth login".replace("no ", ""),
    ),
  ],
)
def test_a_tpu_that_cannot_be_made(cloud, reason, message):
  cloud.plan(tpu_vm__create=[reason])
  status, _, error = cloud.run("tpu.sh", "--delete", *WHERE, "c.py")
  assert status == 1
  assert last(error).startswith(f"{PREFIX}try cannot be made: ERROR: ")
  assert message in last(error)
  assert cloud.verbs("gcloud", 4) == ["describe", "create"]


def test_gcloud_that_is_not_logged_in(cloud):
  cloud.plan(tpu_vm__describe=["auth"])
  status, _, error = cloud.run("tpu.sh", *WHERE, "c.py")
  assert status == 1 and error.count("\n") == 1
  assert "cannot look at try" in error and "Run gcloud auth login" in error


def test_a_name_that_is_taken(cloud):
  cloud.put("tpu-vm/try.json", {"state": "READY", "kind": "v4-8", "workers": 1})
  status, _, error = cloud.run("tpu.sh", "--delete", *WHERE, "c.py")
  assert status == 1 and error.count("\n") == 1
  assert "a TPU try in zone-a already, a v4-8 and no v5litepod-8" in error
  assert (cloud.state / "tpu-vm/try.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("state", ["READY", "STOPPED", "PREEMPTED"])
def test_a_tpu_that_is_there_is_used(cloud, state):
  there = {"state": state, "kind": "v5litepod-8", "workers": 1}
  cloud.put("tpu-vm/try.json", there)
  fake_run(cloud, "echo trained")
  status, out, error = cloud.run("tpu.sh", *WHERE, "c.py")
  assert (status, out) == (0, "trained\n"), error
  assert f"{PREFIX}the TPU try is still there, and costs" in last(error)
  verbs = cloud.verbs("gcloud", 4)
  assert verbs.count("start") == (state == "STOPPED")
  assert (
    verbs.count("create") == verbs.count("delete") == (state == "PREEMPTED")
  )


@pytest.mark.slow
def test_queued_resources_are_waited_for(cloud):
  fake_run(cloud, "echo trained")
  status, out, error = cloud.run(
    "tpu.sh", "--queued", "--spot", "--delete", *WHERE, "c.py", *BUCKET
  )
  assert (status, out) == (0, "trained\n"), error
  assert not list(cloud.state.glob("queued-resources/*"))


def test_a_queued_resource_that_google_refuses(cloud):
  cloud.put("queue.json", ["FAILED"])
  cloud.put("no_node.json", True)
  status, _, error = cloud.run("tpu.sh", "--queued", *WHERE, "c.py")
  assert status == 1
  assert f"{PREFIX}Google has refused the queued resource try; gcloud" in error


@pytest.mark.parametrize("status", [1])
def test_an_error_of_the_run_is_the_end(cloud, status):
  fake_run(cloud, f"echo error: no such field; exit {status}")
  found, out, error = cloud.run("tpu.sh", "--delete", *WHERE, "c.py")
  assert (found, out) == (status, "error: no such field\n")
  assert f"{PREFIX}the run ended with status {status}; see above" in error
  assert cloud.verbs("gcloud", 4)[-1] == "delete"


@pytest.mark.slow
def test_a_lost_process_starts_the_run_again(cloud):
  fake_run(
    cloud, 'echo x >>"$BUCKET/n"; [ $(wc -l <"$BUCKET/n") -gt 2 ] || exit 3'
  )
  # The third look, after the first end, finds no network twice.
  cloud.plan(tpu_vm__describe=["", "", "network", "network"])
  status, _, error = cloud.run("tpu.sh", *WHERE, "c.py")
  assert status == 0, error
  assert error.count("the run was interrupted (status 3)") == 2
  assert "again, 2 of at most 100 times" in error


@pytest.mark.slow
def test_restarts_come_to_an_end(cloud):
  fake_run(cloud, "exit 75")
  status, _, error = cloud.run("tpu.sh", "--restarts", "2", *WHERE, "c.py")
  assert status == 75
  assert f"{PREFIX}given up after 2 restarts; the same command goes" in error


@pytest.mark.slow
def test_an_error_of_another_worker_is_no_lost_process(cloud):
  cloud.put("workers.json", 2)
  fake_run(
    cloud,
    '[ "$KD_JAX_PROCESS" = 0 ] && { sleep 0.3; exit 3; }\n'
    "echo error: no image here; exit 1",
  )
  status, out, error = cloud.run("tpu.sh", *POD, "c.py", *BUCKET)
  assert status == 1 and ": error: no image here" in out
  assert f"{PREFIX}a worker ended with an error" in error


def test_packages_that_cannot_be_installed(cloud):
  stub = "#!/bin/sh\necho no matching distribution >&2; exit 1\n"
  (cloud.binaries / "python3").write_text(stub)
  (cloud.binaries / "python3").chmod(0o755)
  status, _, error = cloud.run("tpu.sh", "--delete", *WHERE, "c.py", PYTHON="")
  assert status == 1
  assert "no matching distribution" in error
  assert "requirements-tpu.txt cannot be installed on" in error
  assert f"{PREFIX}the run cannot be started on try (status 2)" in error
  assert cloud.verbs("gcloud", 4)[-1] == "delete"


@pytest.mark.slow
def test_a_tpu_taken_away_is_made_anew_even_where_there_is_none(cloud):
  fake_run(cloud, 'touch "$BUCKET/up"; [ -e "$BUCKET/go" ] || sleep 100')
  process = cloud.start("tpu.sh", "--spot", *WHERE, "c.py", *BUCKET)
  case.wait_for((cloud.bucket / "up").exists, process)
  cloud.plan(tpu_vm__create=["capacity", "capacity"])
  (cloud.bucket / "go").touch()
  stand_ins.preempt("try")
  _, error = process.communicate(timeout=60)
  assert process.returncode == 0, error
  assert f"{PREFIX}try is PREEMPTED" in error
  assert error.count("there is none at the moment") == 2
  assert error.count("making try, a v5litepod-8") == 4


@pytest.mark.slow
def test_ctrl_c_leaves_the_run_alone_and_the_same_command_finds_it(cloud):
  fake_run(
    cloud,
    'touch "$BUCKET/up"; echo one\n'
    'while [ ! -e "$BUCKET/go" ]; do sleep 0.05; done; echo two',
  )
  process = cloud.start("tpu.sh", *WHERE, "c.py")
  case.wait_for((cloud.bucket / "up").exists, process)
  case.wait_for(lambda: "follow" in str(cloud.calls("gcloud")[-1]), process)
  process.send_signal(signal.SIGINT)
  _, error = process.communicate(timeout=60)
  assert process.returncode == 130
  assert "the run goes on at try; the same command shows it again" in error
  process = cloud.start("tpu.sh", *WHERE, "c.py")
  case.wait_for(
    lambda: len([c for c in cloud.calls("gcloud") if "follow" in str(c)]) > 1,
    process,
  )
  (cloud.bucket / "go").touch()
  out, error = process.communicate(timeout=60)
  assert (process.returncode, out) == (0, "one\ntwo\n"), error
  assert "a run is going on already" in error


@pytest.mark.slow
def test_ctrl_c_with_delete_lets_the_run_save(cloud):
  fake_run(
    cloud,
    'trap \'touch "$BUCKET/saved"; exit 75\' TERM; touch "$BUCKET/up"\n'
    "while :; do sleep 0.05; done",
  )
  process = cloud.start("tpu.sh", "--delete", *WHERE, "c.py")
  case.wait_for((cloud.bucket / "up").exists, process)
  case.wait_for(lambda: "follow" in str(cloud.calls("gcloud")[-1]), process)
  process.send_signal(signal.SIGINT)
  _, error = process.communicate(timeout=60)
  assert process.returncode == 130 and (cloud.bucket / "saved").exists(), error
  assert not list(cloud.state.glob("tpu-vm/*"))


@pytest.mark.slow
def test_a_pod_is_preempted_in_the_middle_and_goes_on(tmp_path, monkeypatch):
  """Two real processes train on a checkout of their own, to the end."""
  cloud = Cloud(tmp_path).check_out("kd_jax", "configs", "tests/configs")
  monkeypatch.setattr(stand_in_state, "FOLDER", cloud.state)
  cloud.put("workers.json", 2)
  workdir = cloud.bucket / "run"
  words = case.tiny(cloud, "gs://bucket/run", "steps=60")
  process = cloud.start("tpu.sh", "--spot", "--delete", *POD, *words)
  case.wait_for(lambda: runs.checkpoints(workdir), process)
  stand_ins.preempt("try")
  saved = runs.checkpoints(workdir)[-1]
  out, error = process.communicate(timeout=runs.PATIENCE)
  assert process.returncode == 0, error
  assert f"{PREFIX}try is PREEMPTED" in error
  assert out.count("continuing after step") == 1 and saved < 60
  assert runs.checkpoints(workdir)[-1] == 60
  assert (workdir / "student" / "model.safetensors").exists()
  assert not list(cloud.state.glob("tpu-vm/*"))
