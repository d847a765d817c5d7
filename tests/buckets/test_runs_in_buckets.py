"""Whole runs whose workdir is a bucket end as those on a disk do."""

import json
import signal
import time

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import runs
import s3_case
from kd_jax import main
from kd_jax.buckets import store
from kd_jax.report import metrics

STEPS = 12


def arrays(url, step):
  """{path: array} of a checkpoint, read with nothing but NumPy."""
  text = store.read(f"{url}/checkpoints/{step}", "process-00000-of-00001.json")
  notes, found = json.loads(text), {}
  for name, kind in notes["shapes"].items():
    dtype, _, shape = kind.partition("[")
    shape = json.loads(f"[{shape}")
    key = "/".join(["c", *("0" for _ in shape)])
    data = store.read(f"{url}/checkpoints/{step}/arrays/{name}", key)
    # The last four bytes are a CRC-32C.
    found[name] = np.frombuffer(data[:-4], dtype).reshape(shape)
  return found


def tensors(data):
  return safetensors_numpy.load(data)


def numbers(folder):
  drop = ("images_per_s",)
  return [
    {k: v for k, v in line.items() if k not in drop}
    for line in metrics.read(folder)
  ]


def assert_same_run(url, disk, tmp_path):
  """Weights, every logged number, and the files that people read."""
  got = tensors(store.read(url, "student/model.safetensors"))
  want = tensors((disk / "student" / "model.safetensors").read_bytes())
  assert set(got) == set(want) and len(want) > 20
  for name, array in want.items():
    assert np.array_equal(got[name], array), name
  folder = s3_case.download(url, tmp_path / "down")
  assert numbers(folder) == numbers(disk) and len(numbers(disk)) >= STEPS
  theirs = runs.state(disk, STEPS)
  ours = arrays(url, STEPS)
  assert len(ours) == len(theirs) > 90
  name = "params/student/stage4/block0/conv1/kernel"
  other = theirs["['" + name.replace("/", "']['") + "']"]
  assert np.array_equal(ours[name], other)
  files = {
    path.relative_to(disk).as_posix()
    for path in disk.rglob("*")
    if path.is_file() and "checkpoints" not in path.parts
  }
  files = {f for f in files if "tfevents" not in f and ".lock" not in f}
  there = {*store.keys(url)}
  assert files <= there and {"report.html", "artifact.npz"} <= files
  assert ".lock" not in there
  assert any("tfevents" in key for key in there)


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
  """A run on a disk, and its fields."""
  folder = tmp_path_factory.mktemp("disk")
  fields = (f"teacher.weights={runs.save_teacher(folder / 'teacher')}",)
  runs.here(folder / "run", *fields)
  return folder / "run", fields


@pytest.fixture(scope="module")
def average(tmp_path_factory):
  """The same with a moving average."""
  folder = tmp_path_factory.mktemp("average")
  fields = (f"teacher.weights={runs.save_teacher(folder / 'teacher')}",)
  runs.here(folder / "run", *fields, variant="ema")
  return folder / "run", fields


@pytest.fixture
def refused(monkeypatch, capsys):
  """Runs what ends in one line, in an environment; says that line."""

  def run(*args, **env):
    with monkeypatch.context() as patched:
      for name, value in env.items():
        patched.setenv(name, value)
      store.context.cache_clear()
      assert main.main(runs.arguments(*args)) == 1
    store.context.cache_clear()
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1, said
    return said

  return run


def test_a_run_ends_as_on_a_disk_and_goes_on_where_it_was(disk, tmp_path):
  url, (folder, fields) = "memory://bucket/run", disk
  assert f"workdir                   {url}" in runs.here(url, *fields)
  assert_same_run(url, folder, tmp_path)
  before = {key: store.read(url, key) for key in store.keys(url)}
  assert "continuing after step 12" in runs.here(url, *fields)
  same = [k for k in before if k.startswith(("checkpoints/", "student/"))]
  assert all(store.read(url, key) == before[key] for key in same)


@pytest.mark.slow
def test_what_other_runs_take_from_it(disk, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path / "cache"))
  url, (folder, fields) = "memory://bucket/taken", disk
  runs.here(url, *fields)
  teacher = "memory://bucket/teacher"
  for name in ("config.json", "model.safetensors"):
    path = folder.parent / "teacher" / name
    store.write(teacher, name, path.read_bytes())
  runs.here(
    tmp_path / "next",
    f"teacher.weights={teacher}",
    f"init_from={url}",
    f"fit.artifact={url}/artifact.npz",
    "optim.lr=0.0",
    "steps=1",
  )
  assert not (tmp_path / "next" / "artifact.npz").exists()
  theirs = tensors((folder / "student" / "model.safetensors").read_bytes())
  path = tmp_path / "next" / "student" / "model.safetensors"
  ours = tensors(path.read_bytes())
  kernel = "layer4.0.conv1.weight"
  assert np.array_equal(ours[kernel], theirs[kernel])

  # Another experiment, and a list that is not there.
  assert main.main(runs.arguments(url, *fields, "seed=9")) == 1
  said = capsys.readouterr().err
  assert f"error: {url} holds another experiment: ['seed'] differ" in said
  artifact = f"fit.artifact={url}/none.npz"
  assert main.main(runs.arguments(tmp_path / "x", *fields, artifact)) == 1
  assert f"there is no basis at {url}/none.npz" in capsys.readouterr().err


@pytest.mark.slow
def test_export_from_a_checkpoint_in_a_bucket(disk):
  url, (_, fields) = "memory://bucket/unfinished", disk
  runs.here(url, *fields)
  store.delete(url, [k for k in store.keys(url) if k.startswith("student/")])
  arguments = ["--config", str(runs.ROOT / "configs/export.py")]
  arguments += [f"--config.workdir={url}", f"--config.output={url}-out"]
  assert main.main(arguments) == 0
  found = store.keys(f"{url}-out")
  assert {"README.md", "stablehlo/model.bin", "timm/config.json"} <= {*found}
  folder, _ = disk
  want = tensors((folder / "student" / "model.safetensors").read_bytes())
  got = tensors(store.read(f"{url}-out", "timm/model.safetensors"))
  for name, array in want.items():
    assert np.array_equal(got[name], array), name


@pytest.mark.slow
def test_what_cannot_be_used_is_said_in_one_line(gate, disk, refused):
  _, fields = disk
  said = refused("s3://absent/run", *fields)
  assert "there is no bucket s3://absent; create it, or correct" in said
  gate.fault = lambda *_: 403
  said = refused("s3://bucket/run", *fields)
  assert "may not be read or written" in said and "AWS_ACCESS_KEY_ID" in said
  said = refused("s3://bucket/run", *fields, AWS_ACCESS_KEY_ID="")
  assert "may not be read or written" in said
  nowhere = "http://127.0.0.1:9"
  said = refused("s3://bucket/run", *fields, AWS_ENDPOINT_URL=nowhere)
  assert f"cannot be reached at AWS_ENDPOINT_URL={nowhere}" in said
  assert "neither a folder nor a bucket" in refused("http://b/run", *fields)
  gate.fault = lambda *_: None
  weights = "teacher.weights=s3://absent/teacher/model.safetensors"
  said = refused("s3://bucket/w", weights)
  assert "there is no s3://absent/teacher/model.safetensors" in said
  weights = "teacher.weights=s3://bucket/teacher"
  said = refused("s3://bucket/v", weights)
  assert "there is no s3://bucket/teacher/model.safetensors" in said


# Request, part of its path, which one of them, whether it is still done.
KILLS = (
  ("PUT", "/run/config.json", 1, True),
  ("PUT", "/run/artifact.npz", 1, False),
  ("PUT", "/checkpoints/3/arrays/params", 5, True),
  ("PUT", "/checkpoints/3/process", 1, False),
  ("PUT", "/run/metrics.jsonl", 2, False),
  ("PUT", "/checkpoints/9/process", 1, True),
  ("DELETE", "/checkpoints/3/arrays/", 7, True),
  ("DELETE", "/checkpoints/6/process", 1, True),
  ("PUT", "/student/config.json", 1, True),
  ("PUT", "/run/report.html", 1, False),
)


@pytest.mark.slow
def test_kills_at_any_request_change_no_bit(gate, average, tmp_path):
  folder, fields = average
  url, said = "s3://bucket/kills/run", []

  def start():
    return runs.start(url, *fields, variant="ema", **s3_case.LEASE)

  moments = s3_case.Moments(gate, start)
  for kill in KILLS:
    said.append(moments.at(*kill))
  after = [
    text.partition("continuing after step ")[2].partition("\n")[0]
    for text in said
  ]
  # Files also go up in the background, so some come at other steps.
  assert after[:5] == [""] * 5 and after[7:] == ["9", "12", "12"], after
  runs.complete(url, *fields, variant="ema", **s3_case.LEASE)
  assert_same_run(url, folder, tmp_path)
  steps = {key.split("/")[0] for key in store.keys(f"{url}/checkpoints")}
  assert steps == {"9", "12"}


@pytest.mark.slow
def test_the_signal_that_saves(s3, disk, tmp_path):
  folder, fields = disk
  url = "s3://bucket/signal/run"
  process = runs.start(url, *fields, **s3_case.LEASE)
  while process.poll() is None and not store.read(url, metrics.FILE):
    time.sleep(0.01)
  process.send_signal(signal.SIGTERM)
  status, said = runs.finish(process)
  assert status == 0 and "and saved; the same command goes on" in said, said
  assert ".lock" not in store.keys(url)
  found = runs.complete(url, *fields, **s3_case.LEASE)
  assert "was in use" not in found
  assert_same_run(url, folder, tmp_path)


@pytest.mark.slow
def test_a_second_command_is_refused_and_a_lost_owner_ends(s3, disk, tmp_path):
  folder, fields = disk
  url = "s3://bucket/second/run"
  first = runs.start(url, *fields, "log_every=1", **s3_case.LEASE)
  while first.poll() is None and not runs_in(url):
    time.sleep(0.01)
  before = store.keys(url)
  first.send_signal(signal.SIGSTOP)
  time.sleep(0.5)
  try:
    # It does not move, so it is taken for dead.
    runs.complete(url, *fields, **s3_case.LEASE)
  finally:
    first.send_signal(signal.SIGCONT)
  status, said = runs.finish(first)
  assert status == 1 and f"error: {url} was taken over by process" in said
  assert before
  assert_same_run(url, folder, tmp_path)


def runs_in(url):
  return any("process-" in key for key in store.keys(f"{url}/checkpoints"))


def together(url, *fields, count=2):
  """Processes of two devices each, which train together."""
  port = s3_case.free_port()
  return [
    runs.start(
      url,
      *fields,
      KD_JAX_COORDINATOR=f"127.0.0.1:{port}",
      KD_JAX_PROCESSES=str(count),
      KD_JAX_PROCESS=str(index),
      XLA_FLAGS=runs.devices(2),
      **s3_case.LEASE,
    )
    for index in range(count)
  ]


@pytest.mark.slow
def test_processes_write_their_parts_and_go_on(s3, disk, tmp_path):
  """Two processes of two devices, one killed; then two, then one alone."""
  _, fields = disk
  fields = (*fields, "fsdp=true", "data.split=train[:192]")
  quiet, url = "s3://bucket/quiet/run", "s3://bucket/processes/run"
  for process in together(quiet, *fields):
    status, said = runs.finish(process)
    assert status == 0, said
  words = [k for k in store.keys(f"{quiet}/checkpoints/12") if "process-" in k]
  assert words == [f"process-0000{i}-of-00002.json" for i in range(2)]
  name = "params/student/stage4/block0/conv1/kernel"
  parts = store.keys(f"{quiet}/checkpoints/12/arrays/{name}/c")
  assert len(parts) == 4  # one for each device

  both = together(url, *fields)
  while not runs_in(url):
    assert both[0].poll() is None, runs.finish(both[0])
    time.sleep(0.01)
  both[1].kill()
  ends = [runs.finish(process) for process in both]
  # How the one that is left ends is told by tests/launch/test_local.py.
  assert ends[1][0] == -signal.SIGKILL and ends[0][0] != 0, ends[0]
  for process in together(url, *fields):
    status, said = runs.finish(process)
    assert status == 0, said
  want, got = (
    tensors(store.read(each, "student/model.safetensors"))
    for each in (quiet, url)
  )
  assert all(np.array_equal(want[k], got[k]) for k in want)
  down = [
    s3_case.download(each, tmp_path / str(i))
    for i, each in enumerate((quiet, url))
  ]
  assert numbers(down[0]) == numbers(down[1])
  # One process reads what two have written.
  said = runs.complete(url, *fields, **s3_case.LEASE)
  assert "continuing after step 12" in said
  again = tensors(store.read(url, "student/model.safetensors"))
  assert all(np.array_equal(want[k], again[k]) for k in want)


@pytest.mark.slow
def test_a_bank_in_a_bucket(gate, tmp_path, refused):
  """Killed between a shard's arrays and its manifest; then learnt from."""
  fields = [f"teacher.weights={runs.save_teacher(tmp_path / 'teacher')}"]
  fields += ["batch_size=20", "fit.augment=True"]
  url, disk = "s3://bucket/bank/run", tmp_path / "bank"
  runs.complete(disk, *fields, variant="bank")

  def start():
    return runs.start(url, *fields, variant="bank", **s3_case.LEASE)

  s3_case.Moments(gate, start).at(
    "PUT", "/pass0000/shards/00001.json", 1, False
  )
  assert [k for k in store.keys(url) if "shards" in k] == [
    "bank/pass0000/shards/00000.json"
  ]
  gate.seen.clear()
  runs.complete(url, *fields, variant="bank", **s3_case.LEASE)
  made = [path for method, path in gate.seen if method == "PUT"]
  assert not any("values/c/0/" in path for path in made)
  ours, theirs = store.keys(f"{url}/bank"), disk / "bank"
  assert len(ours) > 12
  for key in ours:
    if "/shards/" not in key:  # those of a disk know the sizes of files
      data = store.read(f"{url}/bank", key)
      assert data == (theirs / key).read_bytes(), key
  runs.complete(
    url, *fields, "bank.verify=True", variant="bank", **s3_case.LEASE
  )
  stored = ["teacher.source=bank", "batch_size=20", "steps=3"]
  for place in (f"{url}/bank", theirs):
    name = "s3" if place != theirs else "disk"
    runs.complete(tmp_path / name, *stored, f"teacher.weights={place}")
  assert numbers(tmp_path / "s3") == numbers(tmp_path / "disk")
  said = refused(
    tmp_path / "none", *stored[:1], "teacher.weights=s3://absent/bank"
  )
  assert "there is no bucket s3://absent" in said or "no bank at" in said


@pytest.mark.slow
def test_a_bucket_goes_away(gate, disk, tmp_path, monkeypatch, capsys):
  """Too long for the retries, which are short here; not too long for people."""
  folder, fields = disk
  url = "s3://bucket/away/run"
  quick = {"max_retries": 3, "initial_delay": "10ms", "max_delay": "20ms"}
  monkeypatch.setattr(store, "RETRIES", quick)
  monkeypatch.setattr(store, "FIRST_LOOK", quick)
  for name, seconds in s3_case.LEASE.items():
    monkeypatch.setenv(name, seconds)
  store.context.cache_clear()
  seen = []

  def away(method, path):
    seen.append("/checkpoints/6/" in path)
    return 503 if any(seen) else None

  gate.fault = away
  assert main.main(runs.arguments(url, *fields)) == 1
  gate.fault = lambda *_: None
  (line,) = (
    x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")
  )
  assert f"no checkpoint can be written to {url}/checkpoints: {url}" in line
  assert "cannot be reached" in line and "run the same command again" in line
  # Its note is still there: it could not be taken away.
  assert "continuing after step 3" in runs.here(url, *fields)
  assert_same_run(url, folder, tmp_path)
