"""Stand-ins for gcloud, kubectl, sbatch, srun and scontrol.

They know the flags of the real ones (Google Cloud SDK 528, kubectl 1.32, SLURM
24), refuse all others, write down each call, keep what there is in a folder,
and really run what they are told to run on a worker, a node or a pod: here.
`plan.json` says what fails: {"tpu-vm create": ["quota", ""]} refuses the first
call and not the second.
"""

import contextlib
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import stand_in_state as state
from stand_in_kubectl import controller, kubectl
from stand_in_state import Refused, parse, planned, read, write

ZONE = {"--zone": True, "--quiet": False, "--project": True}
SSH = {"--worker": True, **ZONE}
CREATE = {
  "--accelerator-type": True,
  "--spot": False,
  "--network": True,
  **ZONE,
}
GCLOUD = {
  "tpu-vm create": {"--version": True, "--preemptible": False, **CREATE},
  "tpu-vm describe": {"--format": True, **ZONE},
  "tpu-vm delete": ZONE,
  "tpu-vm start": ZONE,
  "tpu-vm ssh": {"--command": True, **SSH},
  "tpu-vm scp": SSH,
  "queued-resources create": {
    "--runtime-version": True,
    "--node-id": True,
    **CREATE,
  },
  "queued-resources describe": {"--format": True, **ZONE},
  "queued-resources delete": {"--force": False, **ZONE},
}
NEEDED = {
  "tpu-vm create": ("--zone", "--version"),
  "queued-resources create": (
    *("--zone", "--runtime-version", "--accelerator-type", "--node-id"),
  ),
}
SBATCH = {
  "--parsable": False,
  "--job-name": True,
  "--output": True,
  "--open-mode": True,
  "--requeue": False,
  "--nodes": True,
  "--ntasks-per-node": True,
  "--gpus-per-node": True,
  "--signal": True,
  "--time": True,
}
# The first words of what the real ones say, and of nothing else.
REASONS = {
  "quota": "RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepodPerProjectPerZone' "
  "has been exceeded. Limit: 0 in zone z.",
  "capacity": "There is no more capacity in the zone 'z'; you can try in "
  "another zone.",
  "auth": "You do not currently have an active account selected.",
  "network": "There was a problem refreshing your tokens: no route to host",
}


def gcloud(words):
  if words[:2] != ["compute", "tpus"]:
    raise Refused(f"Invalid choice: {words[:2]}", 2)
  what = " ".join(words[2:4])
  if what not in GCLOUD:
    raise Refused(f"Invalid choice: {what}", 2)
  (name, *rest), flags = parse(words[4:], GCLOUD[what], NEEDED.get(what, ()))
  place = what.replace(" ", ".")
  failure = planned(what)
  if failure:
    raise Refused(f"ERROR: (gcloud.compute.tpus.{place}) {REASONS[failure]}")
  if what == "tpu-vm scp":
    return scp(name, *rest, flags["--worker"])
  key = f"{what.split()[0]}/{name}.json"
  there = read(key)
  if what.endswith("create"):
    return create(what, name, key, there, flags)
  if there is None:
    raise Refused(
      f"ERROR: (gcloud.compute.tpus.{place}) NOT_FOUND: Resource "
      f"'projects/p/locations/z/nodes/{name}' was not found"
    )
  return ON_WHAT_IS_THERE[what.split()[1]](name, key, there, flags)


def describe(_, key, there, flags):
  if key.startswith("tpu-vm"):
    assert flags["--format"] == "value(state,acceleratorType.basename())"
    print(f"{there['state']}\t{there['kind']}")
    return 0
  assert flags["--format"] == "value(state.state)"
  print(there["states"][0])
  write(key, {"states": there["states"][1:] or there["states"]})
  return 0


def remove(name, key, _, flags):
  assert key.startswith("tpu-vm") or "--force" in flags
  end(name)
  (state.FOLDER / key).unlink()
  (state.FOLDER / f"tpu-vm/{name}.json").unlink(missing_ok=True)
  return 0


def turn_on(_, key, there, __):
  write(key, {**there, "state": "READY"})
  return 0


def create(what, name, key, there, flags):
  if there is not None:
    raise Refused(f"ERROR: ALREADY_EXISTS: Resource {name} already exists")
  kind = flags["--accelerator-type"]
  assert flags.get("--node-id", name) == name
  if "--node-id" in flags:
    states = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    write(key, {"states": read("queue.json", states)})
  if read("no_node.json"):
    return 0
  write(
    f"tpu-vm/{name}.json",
    {"state": "READY", "kind": kind, "workers": read("workers.json", 1)},
  )
  return 0


def workers(name, which, there):
  numbers = range(there["workers"]) if which == "all" else [int(which)]
  return {i: state.FOLDER / "disks" / name / str(i) for i in numbers}


def scp(source, target, which):
  name, _, path = target.partition(":")
  there = read(f"tpu-vm/{name}.json")
  for disk in workers(name, which, there).values():
    disk.mkdir(parents=True, exist_ok=True)
    (disk / path).write_bytes(pathlib.Path(source).read_bytes())
  return 0


def ssh(name, _, there, flags):
  """The command on each worker; 255 if the TPU is lost meanwhile."""
  which, command = flags["--worker"], flags["--command"]
  if there["state"] != "READY":
    raise Refused(f"ERROR: TPU {name} is not in state READY")
  statuses = {}

  def serve(index, home):
    env = {
      **os.environ,
      "HOME": str(home),
      "KD_JAX_COORDINATOR": f"127.0.0.1:{read('port.json', 21900)}",
      "KD_JAX_PROCESSES": str(there["workers"]),
      "KD_JAX_PROCESS": str(index),
    }
    env.pop("STAND_IN_COMMAND", None)
    process = subprocess.Popen(["bash", "-c", command], cwd=home, env=env)
    while process.poll() is None:
      now = read(f"tpu-vm/{name}.json")
      if now is None or now["state"] != "READY":
        process.kill()
        process.wait()
        statuses[index] = 255
        return
      time.sleep(0.05)
    statuses[index] = process.returncode

  threads = [
    threading.Thread(target=serve, args=item)
    for item in workers(name, which, there).items()
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return next((s for _, s in sorted(statuses.items()) if s), 0)


ON_WHAT_IS_THERE = {
  "describe": describe,
  "delete": remove,
  "start": turn_on,
  "ssh": ssh,
}


def end(name):
  """A TPU and all that runs on it are gone at once, with its disks."""
  for pid in state.FOLDER.glob(f"disks/{name}/*/kd_jax/pid"):
    with contextlib.suppress(OSError, ValueError):
      os.killpg(int(pid.read_text()), signal.SIGKILL)
  disks = state.FOLDER / "disks" / name
  if disks.exists():
    disks.rename(state.FOLDER / f"lost-{name}-{time.monotonic_ns()}")


def preempt(name):
  """For tests: Google takes the TPU away."""
  key = f"tpu-vm/{name}.json"
  write(key, {**read(key), "state": "PREEMPTED"})
  end(name)
  if (state.FOLDER / f"queued-resources/{name}.json").exists():
    states = ["SUSPENDING", "SUSPENDED"]
    write(f"queued-resources/{name}.json", {"states": states})


def sbatch(words):
  options = list(itertools.takewhile(lambda w: w.startswith("--"), words))
  script, *arguments = words[len(options) :]
  text = pathlib.Path(script).read_text()
  directives = re.findall(r"^#SBATCH (\S+)$", text, re.M)
  _, flags = parse([*directives, *options], SBATCH)
  if planned("sbatch"):
    raise Refused("sbatch: error: Batch job submission failed: Invalid account")
  number = len(list(state.FOLDER.glob("jobs/*.json"))) + 1
  job = {"script": script, "arguments": arguments, "flags": flags}
  write(f"jobs/{number}.json", job)
  print(number)
  return 0


def scontrol(words):
  command, number = words
  if command != "requeue":
    raise Refused(f"invalid keyword: {command}")
  job = read(f"jobs/{number}.json")
  if not job["flags"].get("--requeue"):
    raise Refused("Requested operation is presently disabled")
  write(f"jobs/{number}.json", {**job, "requeue": True})
  return 0


def srun(words):
  """Starts the tasks of a step, passes signals on, ends all for a bad one."""
  own = [w for w in words if w.startswith("--")][:1]
  _, flags = parse(own, {"--kill-on-bad-exit": True})
  count = int(os.environ["SLURM_NTASKS"])
  tasks = []
  for i in range(count):
    env = {
      **os.environ,
      "SLURM_STEP_NODELIST": "localhost",
      "SLURM_STEP_NUM_TASKS": str(count),
      "SLURM_STEP_TASKS_PER_NODE": f"1(x{count})",
      "SLURM_NODEID": str(i),
      "SLURM_PROCID": str(i),
      "SLURM_LOCALID": "0",
    }
    tasks.append(subprocess.Popen(words[len(own) :], env=env))
  write("tasks.json", [task.pid for task in tasks])

  def forward(number, _):
    for task in tasks:
      task.send_signal(number)

  signal.signal(signal.SIGTERM, forward)
  bad_at = None
  while any(task.poll() is None for task in tasks):
    time.sleep(0.05)
    if bad_at is None and any(task.returncode for task in tasks):
      bad_at = time.monotonic()
    # SLURM's KillWait, made short.
    if (
      bad_at and time.monotonic() - bad_at > 3 and "--kill-on-bad-exit" in flags
    ):
      forward(signal.SIGKILL, None)
  codes = [task.returncode for task in tasks]
  return max(128 - code if code < 0 else code for code in codes)


COMMANDS = {
  command.__name__: command
  for command in (gcloud, kubectl, sbatch, scontrol, srun, controller)
}


def install(folder):
  """Writes the commands; (the folder for PATH)."""
  binaries = folder / "bin"
  binaries.mkdir(parents=True)
  for name in COMMANDS:
    path = binaries / name
    path.write_text(
      f'#!/bin/sh\nexec {sys.executable} -E -s -S {__file__} {name} "$@"\n'
    )
    path.chmod(0o755)
  return binaries


if __name__ == "__main__":
  this, *given = sys.argv[1:]
  with (state.FOLDER / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps([this, *given]) + "\n")
  try:
    sys.exit(COMMANDS[this](given))
  except Refused as refused:
    print(refused, file=sys.stderr)
    sys.exit(refused.status)
