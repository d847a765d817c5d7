"""Which processes a run consists of, and how they find each other.

In this order, the first that is there:

- KD_JAX_COORDINATOR (host:port of process 0), KD_JAX_PROCESSES (how many) and
  KD_JAX_PROCESS (which one this is, from 0), which launch/local.sh and
  launch/gke.yaml set; KD_JAX_PROCESSES=1 is a run alone, wherever it is;
- Open MPI, SLURM, Kubernetes and TPU pods, which `jax.distributed` knows by
  their own variables. TPU VMs outside of Kubernetes ask the metadata server of
  their own host; nobody else asks anything before there is another process.

A process that finds nothing of all this runs alone and needs no network.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path

import jax

from kd_jax import last_words

# Seconds after which a silent process is given up.
HEARTBEAT = 10
# Seconds that processes wait for each other at the start.
PATIENCE = 300
OURS = ("KD_JAX_COORDINATOR", "KD_JAX_PROCESSES", "KD_JAX_PROCESS")
# What `jax.distributed` reads of a step that srun has started.
SLURM = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")
ALONE = "KD_JAX_PROCESSES=1 runs alone."


@dataclasses.dataclass(frozen=True)
class Place:
  """What is known of a process that has others beside it.

  Attributes:
    method: what `jax.distributed` calls the way to find them; "deactivate" is
      by the three fields below alone.
    coordinator: host:port of process 0; '' is to be found.
    count: processes in all; 0 is to be found.
    index: which of them this is; -1 is to be found.
    devices: the GPUs of this process among those that it can see; empty is all
      of them, None is one, by the process's number on its host.
  """

  method: str
  coordinator: str = ""
  count: int = 0
  index: int = -1
  devices: tuple[int, ...] | None = ()


def find(env: Mapping[str, str], *, tpus: bool = False) -> Place | None:
  """This process among the others, None if it runs alone.

  Args:
    env: its environment.
    tpus: whether the host has TPUs, and this process may use them.

  Raises:
    ValueError: the others are described by halves.
  """
  if any(env.get(name) for name in OURS):
    return _ours(env)
  if "OMPI_COMM_WORLD_SIZE" in env:
    return _open_mpi(env)
  if "SLURM_STEP_NUM_TASKS" in env:
    return _slurm(env)
  if tpus:
    return _tpu(env)
  return _kubernetes(env)


def join() -> None:
  """Finds the other processes and waits for them, if there are any.

  From then on a lost process ends this one within 30 s, with one line and
  status 3.

  Raises:
    ValueError: the others are described by halves, or cannot be reached.
  """
  place = find(os.environ, tpus=_has_tpus(os.environ))
  if place is None or jax.distributed.is_initialized():
    return
  last_words.watch(PATIENCE)
  try:
    jax.distributed.initialize(
      place.coordinator or None,
      place.count or None,
      None if place.index < 0 else place.index,
      local_device_ids=place.devices,
      cluster_detection_method=place.method,
      initialization_timeout=PATIENCE,
      heartbeat_timeout_seconds=HEARTBEAT,
    )
  except (RuntimeError, OSError, LookupError, ValueError) as error:
    first = (str(error) or type(error).__name__).splitlines()[0]
    raise ValueError(
      f"the other processes cannot be found by way of {place.method!r} "
      f"({first}). Set {', '.join(OURS)} in each process; {ALONE}"
    ) from error


def check_devices() -> None:
  """Starts JAX's backend.

  Raises:
    ValueError: JAX_PLATFORMS names none that this machine has.
  """
  spare_thread()
  try:
    jax.devices()
  # JAX fails an assertion where it leaves out the only one that is named.
  except (RuntimeError, AssertionError) as error:
    asked = os.environ.get("JAX_PLATFORMS", "")
    first = (str(error) or "there is none").splitlines()[0]
    raise ValueError(
      f"JAX cannot use the devices of this machine ({first}). JAX_PLATFORMS is "
      f"{asked!r}; JAX_PLATFORMS=cpu takes the CPU, and 'kd-jax doctor' says "
      "what there is"
    ) from error


def spare_thread() -> None:
  """Gives JAX a second thread on a machine with one core; before it starts.

  A callback, such as a teacher in PyTorch, keeps the thread that calls it, and
  waits for another one to copy its images.
  """
  everywhere = not hasattr(os, "sched_getaffinity")
  cores = os.cpu_count() if everywhere else len(os.sched_getaffinity(0))
  if cores == 1:
    os.environ.setdefault("NPROC", "2")  # read by XLA


def _ours(env: Mapping[str, str]) -> Place | None:
  coordinator, *numbers = (env.get(name, "") for name in OURS)
  count, index = (int(n) if n.isdigit() else -1 for n in numbers)
  if count == 1 and numbers[1] in ("", "0"):
    return None
  if re.fullmatch(r".+:\d+", coordinator) and 0 <= index < count:
    return Place("deactivate", coordinator, count, index)
  raise ValueError(
    f"{', '.join(OURS)} are {[coordinator, *numbers]}; they must be the "
    "host:port of process 0, a count and an index below it. Use "
    "launch/local.sh, or unset all three to run alone."
  )


def _open_mpi(env: Mapping[str, str]) -> Place | None:
  count = _number(env, "OMPI_COMM_WORLD_SIZE")
  if count == 1:
    return None
  if "OMPI_MCA_orte_hnp_uri" not in env:  # since Open MPI 5
    raise ValueError(
      f"OMPI_COMM_WORLD_SIZE is {count}, but there is no "
      "OMPI_MCA_orte_hnp_uri that names the host of process 0. Set "
      f"{', '.join(OURS)} in each process; {ALONE}"
    )
  number = "OMPI_COMM_WORLD_LOCAL_RANK"
  there = _number(env, "OMPI_COMM_WORLD_LOCAL_SIZE")
  return Place("ompi", devices=_gpus(env, _number(env, number), there))


def _slurm(env: Mapping[str, str]) -> Place | None:
  """A step of srun; the shell of a job is one too, of a single task."""
  count = _number(env, "SLURM_STEP_NUM_TASKS")
  if count == 1:
    return None
  missing = [f"SLURM_{n}" for n in SLURM if not env.get(f"SLURM_{n}")]
  if missing:
    raise ValueError(
      f"SLURM_STEP_NUM_TASKS is {count}, but {missing} are not set. Start "
      f"with srun, as launch/slurm.sbatch does; {ALONE}"
    )
  node = _number(env, "SLURM_NODEID") if env.get("SLURM_NODEID") else 0
  there = _tasks(env.get("SLURM_STEP_TASKS_PER_NODE", ""), node)
  gpus = _gpus(env, _number(env, "SLURM_LOCALID"), there or count)
  # SLURM_NTASKS may be the job's, which has other steps.
  index = _number(env, "SLURM_PROCID")
  return Place("slurm", count=count, index=index, devices=gpus)


def _tpu(env: Mapping[str, str]) -> Place | None:
  """The hosts of a TPU slice, or of several."""
  hosts = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES")
  if hosts:  # Kubernetes sets them
    slices = env.get("MEGASCALE_NUM_SLICES") or "1"
    if "," not in hosts and slices == "1":
      return None
    if not env.get("TPU_WORKER_ID", "").isdigit():
      raise ValueError(
        f"the TPU's hosts are {hosts!r}, but TPU_WORKER_ID is "
        f"{env.get('TPU_WORKER_ID', '')!r}; it must say which one this is. "
        f"{ALONE}"
      )
    return Place("gketpu")
  # Whoever says so has no metadata server, as in a container.
  return None if env.get("TPU_SKIP_MDS_QUERY") else Place("gcetpu")


def _kubernetes(env: Mapping[str, str]) -> Place | None:
  """The pods of an indexed job; any other pod runs alone."""
  index = env.get("JOB_COMPLETION_INDEX", "")
  if "KUBERNETES_SERVICE_HOST" not in env or not index:
    return None
  if importlib.util.find_spec("kubernetes") is None:
    raise ValueError(
      f"this is pod {index} of an indexed Kubernetes job, which does not say "
      f"how many there are. Set {', '.join(OURS)} as launch/gke.yaml does, or "
      f"pip install kubernetes; {ALONE}"
    )
  return Place("k8s")


def _gpus(
  env: Mapping[str, str], index: int, count: int
) -> tuple[int, ...] | None:
  """An even share of the host's GPUs, in order.

  Raises:
    ValueError: they do not split over the processes of the host.
  """
  seen = env.get("CUDA_VISIBLE_DEVICES")
  if count == 1 or seen == "":
    return ()
  if seen is None:
    return None
  gpus = len(seen.split(","))
  if gpus == 1:  # the launcher has already given each its own
    return ()
  if gpus % count:
    raise ValueError(
      f"{gpus} GPUs (CUDA_VISIBLE_DEVICES={seen}) do not split over the "
      f"{count} processes of this host; start another number of them"
    )
  share = gpus // count
  return tuple(range(index * share, (index + 1) * share))


def _tasks(text: str, node: int) -> int:
  """'4(x2),3' -> 4, 4, 3 by node; 0 if it does not say."""
  counts: list[int] = []
  for part in filter(None, text.split(",")):
    found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
    if found is None:
      return 0
    counts += [int(found[1])] * int(found[2] or 1)
  return counts[node] if node < len(counts) else 0


def _number(env: Mapping[str, str], name: str) -> int:
  text = env.get(name, "")
  if not text.isdigit():
    raise ValueError(f"{name} is {text!r}; it must be a number. {ALONE}")
  return int(text)


def _has_tpus(env: Mapping[str, str]) -> bool:
  """Whether JAX will use TPUs of this host; they hang on its PCI bus."""
  platforms = env.get("JAX_PLATFORMS") or "tpu"
  if "tpu" not in platforms or importlib.util.find_spec("libtpu") is None:
    return False
  vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
  return any(path.read_text().strip() == "0x1ae0" for path in vendors)
