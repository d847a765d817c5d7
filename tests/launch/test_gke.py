"""launch/gke.sh and launch/gke.yaml, with a stand-in for kubectl."""

import json
import os
import shlex
import signal

import pytest
import yaml

import case
import runs
from case import Cloud
from kd_jax import processes

PREFIX = "launch/gke.sh: "
TPU = ("r18", "v5e:2x4", "image:1", "c.py", "--workdir", "gs://bucket/run")
GPUS = ("r18", "nvidia-h100-80gb:2x8", *TPU[2:])


@pytest.fixture
def cluster(tmp_path):
  return Cloud(tmp_path).check_out()


def fake_run(cluster, text):
  (cluster.binaries / "remote-python").write_text(f"#!/bin/bash\n{text}\n")


def manifest(cluster, *words):
  status, out, error = cluster.run("gke.sh", "--print", *words)
  assert status == 0, error
  return yaml.safe_load(out)


def job_of(jobset):
  (replicated,) = jobset["spec"]["replicatedJobs"]
  job = replicated["template"]["spec"]
  pod = job["template"]["spec"]
  (container,) = pod["containers"]
  return job, pod, container


@pytest.mark.parametrize(
  ("shape", "hosts", "chips", "accelerator"),
  [
    ("v5e:1x1", 1, 1, "tpu-v5-lite-podslice"),
    ("v5e:2x4", 1, 8, "tpu-v5-lite-podslice"),
    ("v5e:16x16", 64, 4, "tpu-v5-lite-podslice"),
    ("v4:2x2x4", 4, 4, "tpu-v4-podslice"),
    ("v5p:2x2x2", 2, 4, "tpu-v5p-slice"),
    ("v6e:8x8", 16, 4, "tpu-v6e-slice"),
  ],
)
def test_tpus(cluster, shape, hosts, chips, accelerator):
  jobset = manifest(cluster, "--spot", TPU[0], shape, *TPU[2:])
  job, pod, container = job_of(jobset)
  assert job["completions"] == job["parallelism"] == hosts
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": accelerator,
    "cloud.google.com/gke-tpu-topology": shape.split(":")[1],
    "cloud.google.com/gke-spot": "true",
  }
  assert container["resources"]["limits"] == {"google.com/tpu": chips}
  # JAX finds the hosts of a TPU by GKE's own variables.
  assert [v["name"] for v in container["env"]] == ["KD_JAX_STOP_STATUS"]


def test_gpus(cluster):
  words = ("--restarts", "7", *GPUS, '--config.x="a\\b, NAME"')
  jobset = manifest(cluster, *words)
  job, pod, container = job_of(jobset)
  assert jobset["metadata"]["name"] == "r18"
  assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 7
  assert job["completions"] == job["parallelism"] == 2
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-accelerator": "nvidia-h100-80gb"
  }
  assert container["image"] == "image:1"
  assert container["args"] == [*TPU[3:], '--config.x="a\\b, NAME"']
  assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
  values = {v["name"]: v.get("value") for v in container["env"]}
  env = {**values, "KD_JAX_PROCESS": "1"}
  place = processes.find(env)
  assert place == processes.Place("deactivate", "r18-run-0-0.r18:8476", 2, 1)


def test_what_a_manifest_needs(cluster):
  """Of the fields that Kubernetes and JobSet check, those easily lost."""
  jobset = manifest(cluster, *GPUS)
  job, pod, container = job_of(jobset)
  assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
  assert jobset["spec"]["network"]["enableDNSHostnames"] is True
  assert job["completionMode"] == "Indexed" and job["backoffLimit"] == 0
  assert pod["restartPolicy"] == "Never"
  (rule,) = job["podFailurePolicy"]["rules"]
  assert rule["onExitCodes"]["containerName"] == container["name"]
  (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
  assert mount["name"] == volume["name"]
  assert all(isinstance(v.get("value", ""), str) for v in container["env"])
  # No word in capitals is left over, but in names of variables.
  text = json.dumps({**jobset, "env": container.pop("env")})
  for word in ("NAME", "HOSTS", "CHIPS", "IMAGE", "ARGUMENTS", "ACCELERATOR"):
    assert word not in text


def test_dry_run_prints_what_it_would_call_and_calls_nothing(cluster):
  status, out, error = cluster.run("gke.sh", "--dry-run", "--delete", *TPU)
  assert status == 0 and error == ""
  assert not (cluster.state / "calls.jsonl").exists()
  printed = [shlex.split(line) for line in out.splitlines()]
  assert printed[1][-4:] == ["|", "kubectl", "apply", "--filename=-"]
  assert printed[1][1:-4] == ["--print", "--delete", *TPU]
  printed[1] = printed[1][-3:]
  fake_run(cluster, "echo trained")
  status, out, error = cluster.run("gke.sh", "--delete", *TPU)
  assert (status, out) == (0, "trained\n"), error
  assert error.splitlines()[-1] == f"{PREFIX}finished"
  called = cluster.calls("kubectl")
  for line in printed:
    line[2] = line[2].replace("XXXXX", "0")
    assert line in called


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (TPU[:3], "usage: launch/gke.sh"),
    (("--fast", *TPU), "there is no option --fast"),
    (("R18", *TPU[1:]), "NAME is 'R18'; it must be up to 40 small letters"),
    ((TPU[0], "a100:2x8", *TPU[2:]), "no accelerator 'a100:2x8'; there are v4"),
    (
      (TPU[0], "v5e", *TPU[2:]),
      "'v5e' has no topology; write it as in v5e:4x4",
    ),
    ((TPU[0], "nvidia-l4", *TPU[2:]), "has no shape; write HOSTSxGPUS"),
    (("--chips", "3", *TPU), "8 chips (2x4) do not split into hosts of --chip"),
    (("--restarts", "x", *TPU), "--restarts is 'x'; it must be a number"),
    (TPU[:4], "runs/... on it, is lost with the pod; add --workdir gs://BUCKE"),
    ((*TPU[:4], "--workdir=/w"), "the disk of a pod, and /w on it, is lost"),
  ],
)
def test_usage(cluster, words, message):
  status, out, error = cluster.run("gke.sh", *words)
  assert (status, out) == (2, "") and error.count("\n") == 1
  assert error.startswith(PREFIX) and message in error


def test_help(cluster):
  status, out, _ = cluster.run("gke.sh", "--help")
  assert status == 0 and "--namespace NS" in out and "set -u" not in out


@pytest.mark.parametrize("verb", ["get", "apply"])
def test_a_cluster_that_refuses(cluster, verb):
  cluster.plan(**{verb: ["auth"]})
  status, _, error = cluster.run("gke.sh", "--delete", *TPU)
  assert status == 1 and "must be logged in" in error
  assert "; see above" in error.splitlines()[-1]
  assert "delete" not in cluster.verbs("kubectl", 1)


def test_a_name_that_is_taken(cluster):
  cluster.put("jobsets/r18.json", {"state": "Failed", "attempt": 0, "pods": []})
  status, _, error = cluster.run("gke.sh", "--delete", *TPU)
  assert status == 1 and error.count("\n") == 1
  assert "a JobSet r18 already, which is Failed; kubectl delete jobset" in error
  assert (cluster.state / "jobsets" / "r18.json").exists()


def test_an_error_of_the_run_is_the_end(cluster):
  fake_run(cluster, "echo error: no such field; exit 1")
  status, out, error = cluster.run("gke.sh", "--delete", *TPU)
  assert (status, out) == (1, "error: no such field\n")
  assert f"{PREFIX}the run has failed" in error.splitlines()[-1]
  assert cluster.verbs("kubectl", 1)[-1] == "delete"


@pytest.mark.slow
def test_ctrl_c_leaves_the_run_alone_and_the_same_command_finds_it(cluster):
  fake_run(
    cluster,
    'touch "$BUCKET/up"; echo one\n'
    'while [ ! -e "$BUCKET/go" ]; do sleep 0.05; done; echo two',
  )
  process = cluster.start("gke.sh", *TPU)
  case.wait_for((cluster.bucket / "up").exists, process)
  case.wait_for(lambda: cluster.calls("kubectl", "logs"), process)
  process.send_signal(signal.SIGINT)
  _, error = process.communicate(timeout=60)
  assert process.returncode == 130
  assert "the run goes on as r18; the same command shows it again" in error
  (cluster.bucket / "go").touch()
  # It finishes before it is looked at, or after: either is told.
  status, out, error = cluster.run("gke.sh", *TPU)
  assert (status, out) == (0, "one\ntwo\n") or "is Completed" in error


@pytest.mark.slow
def test_a_pod_is_lost_in_the_middle_and_all_go_on(tmp_path):
  """Two real processes on a pod each, to the end."""
  cluster = Cloud(tmp_path).check_out()
  workdir = cluster.bucket / "run"
  words = case.tiny(cluster, "gs://bucket/run", "steps=60")
  words[0] = str(runs.CONFIG)
  process = cluster.start(
    "gke.sh", "--delete", *GPUS[:3], *words, PYTHONPATH=str(runs.ROOT)
  )
  case.wait_for(lambda: runs.checkpoints(workdir), process)
  there = json.loads((cluster.state / "jobsets" / "r18.json").read_text())
  os.kill(there["pods"][1], signal.SIGKILL)
  out, error = process.communicate(timeout=runs.PATIENCE)
  assert process.returncode == 0, error
  assert out.count("continuing after step") == 1
  assert runs.checkpoints(workdir)[-1] == 60
  assert (workdir / "student" / "model.safetensors").exists()
