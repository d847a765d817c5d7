"""How a process finds the others, or that there are none."""

import os
import signal
import subprocess
import sys
import time

import pytest

import runs
from kd_jax import last_words, processes
from kd_jax.processes import Place

SLURM = {
  "SLURM_JOB_ID": "4321",
  "SLURM_STEP_NODELIST": "localhost",
  "SLURM_NTASKS": "4",
  "SLURM_STEP_NUM_TASKS": "4",
  "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
  "SLURM_NODEID": "1",
  "SLURM_PROCID": "3",
  "SLURM_LOCALID": "1",
}
MPI = {
  "OMPI_COMM_WORLD_SIZE": "4",
  "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
  "OMPI_COMM_WORLD_LOCAL_RANK": "2",
  "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
}
OURS = {
  "KD_JAX_COORDINATOR": "host:1234",
  "KD_JAX_PROCESSES": "2",
  "KD_JAX_PROCESS": "1",
}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
HOSTS = {"TPU_WORKER_HOSTNAMES": "t-0,t-1", "TPU_WORKER_ID": "1"}


def changed(env, **changes):
  env = {**env, **changes}
  return {k: v for k, v in env.items() if v is not None}


@pytest.mark.parametrize(
  ("env", "tpus"),
  [
    ({}, False),
    ({"KD_JAX_PROCESSES": "1"}, False),
    ({**OURS, "KD_JAX_PROCESSES": "1", "KD_JAX_PROCESS": "0"}, False),
    ({"KD_JAX_PROCESSES": "1", **SLURM}, True),
    # A shell in `salloc -n 4`, with and without a step of its own.
    ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, False),
    (changed(SLURM, SLURM_STEP_NUM_TASKS="1"), False),
    # The batch script itself.
    ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False),
    (changed(MPI, OMPI_COMM_WORLD_SIZE="1"), False),
    (POD, False),
    ({"JOB_COMPLETION_INDEX": "0"}, False),
    ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, True),
    ({"TPU_SKIP_MDS_QUERY": "1"}, True),
    (HOSTS, False),
  ],
)
def test_alone(env, tpus):
  assert processes.find(env, tpus=tpus) is None


@pytest.mark.parametrize(
  ("env", "wanted"),
  [
    (OURS, Place("deactivate", "host:1234", 2, 1)),
    ({**SLURM, **MPI, **OURS}, Place("deactivate", "host:1234", 2, 1)),
    (SLURM, Place("slurm", count=4, index=3, devices=None)),
    (
      {**SLURM, "CUDA_VISIBLE_DEVICES": "0,1,2,3"},
      Place("slurm", count=4, index=3, devices=(2, 3)),
    ),
    (
      {**SLURM, "CUDA_VISIBLE_DEVICES": "3"},
      Place("slurm", count=4, index=3, devices=()),
    ),
    # One process per node takes all of the node's GPUs.
    (
      changed(SLURM, SLURM_STEP_TASKS_PER_NODE="1(x4)", SLURM_LOCALID="0"),
      Place("slurm", count=4, index=3, devices=()),
    ),
    (
      changed(
        SLURM,
        SLURM_STEP_TASKS_PER_NODE="3,1",
        CUDA_VISIBLE_DEVICES="0,1",
        SLURM_LOCALID="0",
      ),
      Place("slurm", count=4, index=3, devices=()),
    ),
    # A step of fewer tasks than the job has.
    (
      changed(SLURM, SLURM_NTASKS="8"),
      Place("slurm", count=4, index=3, devices=None),
    ),
    (
      {**MPI, "CUDA_VISIBLE_DEVICES": "0,1,2,3"},
      Place("ompi", devices=(2,)),
    ),
    # mpirun starts its daemons with srun.
    ({**SLURM, **MPI}, Place("ompi", devices=None)),
  ],
)
def test_among_others(env, wanted):
  assert processes.find(env) == wanted


@pytest.mark.parametrize(
  ("env", "method"),
  [
    ({}, "gcetpu"),
    (POD, "gcetpu"),
    ({**HOSTS, "TPU_SKIP_MDS_QUERY": "1"}, "gketpu"),
    (
      {
        "TPU_WORKER_HOSTNAMES": "t",
        "TPU_WORKER_ID": "0",
        "MEGASCALE_NUM_SLICES": "2",
      },
      "gketpu",
    ),
  ],
)
def test_hosts_with_tpus(env, method):
  assert processes.find(env, tpus=True) == Place(method)


@pytest.mark.parametrize(
  ("env", "tpus", "message"),
  [
    (changed(OURS, KD_JAX_PROCESS=None), False, r"'host:1234', '2', ''\]"),
    (changed(OURS, KD_JAX_COORDINATOR=None), False, r"\['', '2', '1'\]"),
    (changed(OURS, KD_JAX_COORDINATOR="host"), False, "host:port of process 0"),
    (changed(OURS, KD_JAX_PROCESS="2"), False, "an index below it"),
    (changed(OURS, KD_JAX_PROCESSES="two"), False, "must be the host:port"),
    ({"KD_JAX_PROCESS": "0"}, False, "unset all three to run alone"),
    (
      changed(SLURM, SLURM_LOCALID=None),
      False,
      r"is 4, but \['SLURM_LOCALID'\] are not set. Start with srun",
    ),
    (changed(SLURM, SLURM_STEP_NUM_TASKS="x"), False, "'x'; it must be a num"),
    (
      {**SLURM, "CUDA_VISIBLE_DEVICES": "0,1,2"},
      False,
      "3 GPUs .* do not split over the 2 processes of this host",
    ),
    (changed(MPI, OMPI_MCA_orte_hnp_uri=None), False, "is 4, but there is no"),
    (
      {**POD, "JOB_COMPLETION_INDEX": "3"},
      False,
      "pod 3 of an indexed .* as launch/gke.yaml does, or pip install kube",
    ),
    (changed(HOSTS, TPU_WORKER_ID=None), True, "TPU_WORKER_ID is ''"),
  ],
)
def test_halves(env, tpus, message):
  with pytest.raises(ValueError, match=message) as error:
    processes.find(env, tpus=tpus)
  assert "\n" not in str(error.value)


def test_where_tpus_are_not_used_nobody_is_asked(monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
  monkeypatch.setattr(
    "kd_jax.processes.Path.glob", lambda *_: pytest.fail("looked")
  )
  assert not processes._has_tpus({"JAX_PLATFORMS": "cpu"})


REPORT = """\
F1126 21:54:49.305633    1762 client.h:80] Terminating process because the JAX \
distributed service detected fatal errors. absl::Status: {}
*** Check failure stack trace: ***
    @     0x7faa81c40634  absl::lts_20260107::log_internal::LogMessage
"""
NOTICE = """\
E1126 21:54:49.305027    1751 coordination_service.cc:1549] Use error polling \
to propagate the following error to all tasks: UNAVAILABLE: The following:
1
The tasks have crashed.
"""
SILENT = """\
UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):
1
The tasks have crashed. Check the task logs.

RPC: /xla.coordination.CoordinationService/PollForError [type.googleapis]"""
LATE = """\
DEADLINE_EXCEEDED: Deadline Exceeded

RPC: /xla.coordination.CoordinationService/RegisterTask"""


@pytest.mark.parametrize(
  ("status", "wanted"),
  [
    (
      SILENT,
      "error: another process was lost (UNAVAILABLE: The following tasks are "
      "unhealthy (stopped sending heartbeats): 1)",
    ),
    (
      LATE,
      "error: the other processes did not come within 300 s "
      "(DEADLINE_EXCEEDED: Deadline Exceeded). Start all of them with the same "
      "coordinator, which each must reach.",
    ),
  ],
)
def test_a_report_becomes_a_line(status, wanted):
  assert last_words.line(REPORT.format(status), 300) == wanted


def dying(code):
  """A process that says `code`'s things on descriptor 2, as C++ does."""
  program = f"""
import os, sys, time
from kd_jax import last_words
last_words.watch(300)
say = lambda text: os.write(2, text.encode())
{code}
"""
  return subprocess.run(
    [sys.executable, "-c", program],
    cwd=runs.ROOT,
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )


def test_an_abort_ends_with_one_line_and_its_status():
  texts = [NOTICE, REPORT.format(SILENT)]
  done = dying(
    f"print('step 7'); print('own', file=sys.stderr)\n"
    f"for text in ['W: from below\\n', *{texts!r}]: say(text)\n"
    "import ctypes; ctypes.CDLL(None).abort()"
  )
  assert done.returncode == last_words.LOST and done.stdout == "step 7\n"
  own, below, line = done.stderr.splitlines()
  assert (own, below) == ("own", "W: from below")
  assert line.startswith("error: another process was lost (UNAVAILABLE: ")


def test_all_else_is_passed_on_as_it_is():
  done = dying(
    f"say('one\\n'); say({NOTICE!r}); time.sleep(1); say('two\\n')\n"
    "time.sleep(0.5)"
  )
  assert done.returncode == 0
  assert done.stderr == f"one\n{NOTICE}two\n"


def by_hand(workdir, teacher, count, *fields, port):
  """Processes that nobody watches."""
  env = {
    "KD_JAX_COORDINATOR": f"127.0.0.1:{port}",
    "XLA_FLAGS": runs.devices(1),
  }
  fields = (f"teacher.weights={teacher}", "steps=100000", *fields)
  return [
    runs.start(
      workdir,
      *fields,
      KD_JAX_PROCESSES=str(count),
      KD_JAX_PROCESS=str(i),
      **env,
    )
    for i in range(count)
  ]


@pytest.mark.slow
def test_a_lost_process_ends_the_others(tmp_path):
  """One that is gone without a word, as a host is whose power fails."""
  victim, number = 1, signal.SIGSTOP
  teacher = runs.save_teacher(tmp_path / "teacher")
  port = 21002
  members = by_hand(
    tmp_path / "run",
    teacher,
    3,
    "batch_size=30",
    "eval.batch_size=60",
    port=port,
  )
  give_up = time.monotonic() + runs.PATIENCE
  while not runs.lines(tmp_path / "run"):
    for member in members:
      assert member.poll() is None, member.communicate()[1]
    assert time.monotonic() < give_up, "never came so far"
    time.sleep(0.01)
  os.kill(members[victim].pid, number)
  then = time.monotonic()
  others = [m for i, m in enumerate(members) if i != victim]
  for member in others:
    status, error = runs.finish(member)
    assert status == last_words.LOST, error
    assert error.splitlines()[-1].startswith("error: another process was lost")
    assert error.count("lost (") == 1 and "Check failure" not in error
  assert time.monotonic() - then < 30
  members[victim].kill()
  members[victim].communicate()


def test_others_who_cannot_be_found(monkeypatch):
  """JAX knows no TPU here, whatever we take it for."""
  monkeypatch.setattr(last_words, "watch", lambda _: None)
  monkeypatch.setattr(processes, "find", lambda *_, **__: Place("gcetpu"))
  with pytest.raises(ValueError, match="by way of 'gcetpu' .*Set KD_JAX_COOR"):
    processes.join()


JOIN = """
from kd_jax import processes
processes.join()
import jax
print(jax.process_index(), jax.process_count(), jax.device_count())
"""
# What a TPU VM has and this machine lacks: chips, and a metadata server.
TPU = """
import os
from jax._src.clusters import cloud_tpu_cluster as cluster
from kd_jax import processes
processes._has_tpus = lambda env: True
cluster.running_in_cloud_tpu_vm = True
os.environ.pop("TPU_SKIP_MDS_QUERY", "")
known = {
  "agent-worker-number": os.environ["NUMBER"],
  "worker-network-endpoints": "a:b:127.0.0.1,c:d:127.0.0.1",
  "tpu-env": "",
}
cluster.get_metadata = lambda key: (known[key], 200)
"""
KINDS = {
  "slurm": ("", {**SLURM, "SLURM_STEP_NUM_TASKS": "2"}, "SLURM_PROCID"),
  "mpi": ("", {**MPI, "OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_RANK"),
  "gke": (
    TPU,
    {"TPU_WORKER_HOSTNAMES": "localhost,localhost", "NUMBER": ""},
    "TPU_WORKER_ID",
  ),
  "gce": (TPU, {"JAX_COORDINATOR_PORT": "8483"}, "NUMBER"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_launchers_of_others(kind):
  """Two processes as they start them, with what JAX makes of it."""
  before, env, number = KINDS[kind]
  found = [
    subprocess.Popen(
      [sys.executable, "-c", before + JOIN],
      cwd=runs.ROOT,
      env={
        **os.environ,
        **env,
        number: str(i),
        "XLA_FLAGS": runs.devices(2),
      },
      stdout=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  out = [member.communicate(timeout=120)[0].split() for member in found]
  assert out == [["0", "2", "4"], ["1", "2", "4"]]


@pytest.mark.parametrize(("cores", "wanted"), [(1, "2"), (2, None)])
def test_a_core_alone_has_a_spare_thread(monkeypatch, cores, wanted):
  """`tests/live/test_live_several.py` on one core ends only with it."""
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(cores)})
  monkeypatch.setenv("NPROC", "set back at the end")
  monkeypatch.delenv("NPROC")
  processes.spare_thread()
  assert os.environ.get("NPROC") == wanted
