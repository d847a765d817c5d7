"""kubectl's stand-in, and the controller of JobSets behind it."""

import os
import pathlib
import subprocess
import sys
import time

import stand_in_state as state
from stand_in_state import Refused, parse, planned, read, write

PROGRAM = pathlib.Path(__file__).with_name("stand_ins.py")
KUBECTL = {
  "get": {
    "--ignore-not-found": False,
    "--output": True,
    "--selector": True,
    "--namespace": True,
  },
  "apply": {"--filename": True, "--namespace": True},
  "logs": {
    "--container": True,
    "--follow": False,
    "--since-time": True,
    "--namespace": True,
  },
  "delete": {"--ignore-not-found": False, "--namespace": True},
}


def kubectl(words):
  command, *rest = words
  if command not in KUBECTL:
    raise Refused(f"error: unknown command {command!r}")
  names, flags = parse(rest, KUBECTL[command])
  failure = planned(command)
  if failure:
    raise Refused("error: You must be logged in to the server (Unauthorized)")
  return {"get": get, "apply": apply, "logs": logs, "delete": delete}[command](
    names, flags
  )


def get(names, flags):
  if names[0] == "jobset":
    there = read(f"jobsets/{names[1]}.json")
    if there is not None:
      print(f"is {there['state']}", end="")
    return 0
  of = dict(part.split("=") for part in flags["--selector"].split(","))
  name = of["jobset.sigs.k8s.io/jobset-name"]
  there = read(f"jobsets/{name}.json")
  if flags["--output"] == "name" and there and there["pods"]:
    index = of["batch.kubernetes.io/job-completion-index"]
    print(f"pod/{name}-run-0-{index}-{there['attempt']}")
  elif flags["--output"] != "name":
    print(read("unschedulable.json", ""))
  return 0


def apply(_, flags):
  import site

  site.main()  # started without, which is much faster
  import yaml

  assert flags["--filename"] == "-"
  jobset = yaml.safe_load(sys.stdin)
  name = jobset["metadata"]["name"]
  assert (jobset["apiVersion"], jobset["kind"]) == (
    "jobset.x-k8s.io/v1alpha2",
    "JobSet",
  )
  write(f"jobsets/{name}.yaml.json", jobset)
  write(
    f"jobsets/{name}.json", {"state": "", "attempt": 0, "pods": [], "told": ""}
  )
  subprocess.Popen(
    [sys.executable, PROGRAM, "controller", name],
    start_new_session=True,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
    stderr=(state.FOLDER / "controller.log").open("w"),
  )
  return 0


def controller(words):
  """What the JobSet controller does, for one JobSet."""
  (name,) = words
  key = f"jobsets/{name}.json"
  spec = read(f"jobsets/{name}.yaml.json")["spec"]
  job = spec["replicatedJobs"][0]["template"]["spec"]
  for attempt in range(spec["failurePolicy"]["maxRestarts"] + 1):
    pods = [start_pod(name, job, i, attempt) for i in range(job["completions"])]
    ids = [pod.pid for pod in pods]
    write(key, {"state": "", "attempt": attempt, "pods": ids})
    while True:
      time.sleep(0.05)
      codes = [pod.poll() for pod in pods]
      if not (state.FOLDER / key).exists() or any(codes):
        break
      if all(code == 0 for code in codes):
        write(key, {**read(key), "state": "Completed"})
        return 0
    for pod in pods:
      pod.kill()
      pod.wait()
    if not (state.FOLDER / key).exists():
      return 0
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and job["backoffLimit"] == 0
    if {*codes} & {*rule["onExitCodes"]["values"]}:
      break
  write(key, {**read(key), "state": "Failed"})
  return 0


def start_pod(name, job, index, attempt):
  pod = job["template"]["spec"]
  (container,) = pod["containers"]
  assert pod["restartPolicy"] == "Never" and container["image"]
  env = {**os.environ, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
  env["JOB_COMPLETION_INDEX"] = str(index)
  for variable in container["env"]:
    value = variable.get("value")
    if value is None:
      path = variable["valueFrom"]["fieldRef"]["fieldPath"]
      assert path.endswith("['batch.kubernetes.io/job-completion-index']")
      value = str(index)
    first = f"{name}-run-0-0.{name}:8476"
    env[variable["name"]] = value.replace(
      first, f"127.0.0.1:{read('port.json', 21950)}"
    )
  python, *words = [*container["command"], *container["args"]]
  assert python == "python"
  log = (state.FOLDER / f"{name}-run-0-{index}-{attempt}.log").open("w")
  return subprocess.Popen(
    [os.environ["PYTHON"], *words], env=env, stdout=log, stderr=log
  )


def logs(names, flags):
  assert flags["--container"] == "kd-jax" and "--follow" in flags
  name = names[0].removeprefix("pod/")
  jobset, _, attempt = name.rsplit("-run-0-", 1)[0], "", name.rsplit("-", 1)[1]
  path, shown = state.FOLDER / f"{name}.log", f"{name}.shown.json"
  seen = 0 if flags["--since-time"].startswith("1970") else read(shown, 0)
  while path.exists():
    there = read(f"jobsets/{jobset}.json")
    over = there is None or there["state"] or there["attempt"] != int(attempt)
    text = path.read_text()
    sys.stdout.write(text[seen:])
    sys.stdout.flush()
    seen = len(text)
    write(shown, seen)
    if over:
      return 0
    time.sleep(0.05)
  return 1


def delete(names, _):
  assert names[0] == "jobset"
  (state.FOLDER / f"jobsets/{names[1]}.json").unlink(missing_ok=True)
  return 0
