"""launch/slurm.sbatch, with stand-ins for sbatch, srun and scontrol."""

import json
import shlex
import shutil
import signal
import subprocess

import pytest

import case
import runs
from case import Cloud

PREFIX = "launch/slurm.sbatch: "
OPTIONS = ("--nodes=2", "--gpus-per-node=8", "--time=1:00:00")


@pytest.fixture
def cluster(tmp_path):
  return Cloud(tmp_path).check_out()


def fake_run(cluster, text):
  (cluster.binaries / "remote-python").write_text(f"#!/bin/bash\n{text}\n")


def start_job(cluster, number=1, restarts=0, nodes=1):
  """What slurmctld does with a job that is its turn."""
  job = json.loads((cluster.state / f"jobs/{number}.json").read_text())
  spool = cluster.folder / "slurm_script"  # SLURM runs a copy
  shutil.copy(cluster.checkout / job["script"], spool)
  return subprocess.Popen(
    ["bash", str(spool), *job["arguments"]],
    cwd=cluster.checkout,
    env={
      **cluster.env,
      "SLURM_JOB_ID": str(number),
      "SLURM_NTASKS": str(nodes),
      "SLURM_PROCID": "0",
      "SLURM_LOCALID": "0",
      "SLURM_RESTART_COUNT": str(restarts),
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def end(process):
  _, error = process.communicate(timeout=runs.PATIENCE)
  return process.returncode, error


def requeued(cluster):
  return bool(cluster.calls("scontrol", "requeue", "1"))


def submit(cluster, *words):
  status, _, error = cluster.run("slurm.sbatch", *OPTIONS, *words)
  assert status == 0, error
  assert "job 1 is queued; its log is kd_jax-1.log" in error


def test_dry_run_prints_what_it_would_call_and_calls_nothing(cluster):
  words = ("c.py", "--workdir", "/a b")
  status, out, error = cluster.run(
    "slurm.sbatch", "--dry-run", *OPTIONS, *words, PYTHON="python"
  )
  assert status == 0 and error == ""
  assert not (cluster.state / "calls.jsonl").exists()
  submitted, step = (shlex.split(line) for line in out.splitlines())
  fake_run(cluster, "true")
  submit(cluster, *words)
  assert submitted == cluster.calls("sbatch")[0]
  assert end(start_job(cluster)) == (0, "")
  (called,) = cluster.calls("srun")
  python = str(cluster.binaries / "remote-python")
  assert [python if w == "python" else w for w in step] == called


@pytest.mark.parametrize(
  ("words", "message"),
  [
    ((), "no config; usage: launch/slurm.sbatch"),
    (("--nodes=2",), "no config; usage"),
    (("--nodes", "2", "c.py"), "write --nodes as --name=value; usage"),
    (("-N2", "c.py"), "write -N2 as --name=value"),
  ],
)
def test_usage(cluster, words, message):
  status, out, error = cluster.run("slurm.sbatch", *words)
  assert (status, out) == (2, "") and error.count("\n") == 1
  assert error.startswith(PREFIX) and message in error


def test_help(cluster):
  status, out, _ = cluster.run("slurm.sbatch", "--help")
  assert status == 0 and "KD_JAX_RESTARTS" in out and "SBATCH" not in out


def test_sbatch_that_refuses(cluster):
  cluster.plan(sbatch=["account"])
  status, _, error = cluster.run("slurm.sbatch", *OPTIONS, "c.py")
  assert status == 1 and error.splitlines()[-1] == (
    f"{PREFIX}sbatch refuses; see above"
  )
  status, _, error = cluster.run("slurm.sbatch", "--gpu=8", "c.py")
  assert status == 1 and "unrecognized arguments: --gpu=8" in error


@pytest.mark.parametrize(
  ("ends", "restarts", "again", "message"),
  [
    (0, 0, False, ""),
    (1, 0, False, "the run ended with status 1; see above"),
    (75, 99, True, "stopped and saved (status 75); the job queues again"),
    (3, 0, True, "a process was lost (status 3); the job queues again"),
    (3, 20, False, "that 20 times before; given up"),
  ],
)
def test_ends_of_a_job(cluster, ends, restarts, again, message):
  fake_run(cluster, f"exit {ends}")
  submit(cluster, "c.py")
  status, error = end(start_job(cluster, restarts=restarts))
  assert status == ends and message in error
  assert error.count("\n") == bool(message)
  assert requeued(cluster) == again


def test_a_job_that_may_not_queue_again(cluster):
  fake_run(cluster, "exit 75")
  submit(cluster, "c.py")
  path = cluster.state / "jobs" / "1.json"
  job = json.loads(path.read_text())
  del job["flags"]["--requeue"]  # scontrol update JobId=1 Requeue=0
  path.write_text(json.dumps(job))
  status, error = end(start_job(cluster))
  assert status == 75
  assert error.splitlines()[-1] == (
    f"{PREFIX}it cannot; the same command goes on from the workdir"
  )


@pytest.mark.slow
def test_time_is_over_and_the_job_comes_back(tmp_path):
  """Two real processes, stopped and finished by two starts."""
  cluster = Cloud(tmp_path).check_out("kd_jax", "configs", "tests/configs")
  workdir = cluster.bucket / "run"
  submit(cluster, *case.tiny(cluster, str(workdir), "steps=40"))

  process = start_job(cluster, nodes=2)
  case.wait_for(lambda: runs.checkpoints(workdir), process)
  process.send_signal(signal.SIGUSR1)
  status, error = end(process)
  assert status == 75 and requeued(cluster), error
  assert error.count("and saved; the same command goes on") == 2
  calls = len(cluster.calls("scontrol"))
  stopped = runs.checkpoints(workdir)[-1]
  assert stopped < 40

  status, error = end(start_job(cluster, restarts=1, nodes=2))
  assert status == 0, error
  assert f"continuing after step {stopped}" in error
  assert runs.checkpoints(workdir)[-1] == 40
  assert len(cluster.calls("scontrol")) == calls


@pytest.mark.slow
def test_a_signal_that_comes_twice_still_saves(tmp_path):
  """SLURM signals srun and its tasks; srun passes its own on."""
  teacher = runs.save_teacher(tmp_path / "teacher")
  workdir = tmp_path / "run"
  process = runs.start(workdir, f"teacher.weights={teacher}", "steps=100000")
  case.wait_for(lambda: runs.checkpoints(workdir), process)
  for _ in range(2):
    process.send_signal(signal.SIGTERM)
  status, error = runs.finish(process)
  assert status == 0 and "and saved; the same command goes on" in error
