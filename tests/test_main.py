"""Every foreseeable mistake ends in one line: what, allowed, how to fix."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

import runs
from kd_jax import main
from kd_jax.train.signals import Stopped

FOLDER = ("data.name=folder", "batch_size=4", "steps=3", "preprocess.shift=0")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
  return runs.save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def images(tmp_path):
  """Twenty real crops in two classes."""
  photo = load_sample_image("china.jpg")
  for i in range(20):
    folder = tmp_path / "images" / "ab"[i % 2]
    folder.mkdir(parents=True, exist_ok=True)
    crop = Image.fromarray(photo[20 * i : 20 * i + 60, 10 * i : 10 * i + 80])
    crop.save(folder / f"{i}.jpg")
  return tmp_path / "images"


def refused(capsys, *argv):
  """The one line that a run ends with."""
  assert main.main(list(argv)) == 1
  said = capsys.readouterr().err
  assert "Traceback" not in said
  (line,) = [x for x in said.splitlines() if x.startswith("error: ")]
  assert said.rstrip().endswith(line)
  return line


@pytest.fixture
def brief(monkeypatch):
  """Dry runs measure how fast they read for moments instead of seconds."""
  monkeypatch.setattr("kd_jax.report.run.throughput._SECONDS", 0.1)


def try_tiny(capsys, workdir, *fields, variant=""):
  return refused(capsys, *runs.arguments(workdir, *fields, variant=variant))


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    (("--config", "configs/nosuch.py"), "no config configs/nosuch.py; .*kdep"),
    (("--config", "configs/kdep_r18.py:big"), "no variant 'big'.*'smoke'"),
    (("--config", "README.md"), "README.md"),
    (("--config", str(runs.CONFIG), "--confg.x=1"), "unknown argument"),
    (("--config", str(runs.CONFIG), "--config.seed"), "seed has no value"),
  ],
)
def test_command_line(argv, message, capsys, monkeypatch):
  monkeypatch.chdir(runs.ROOT)
  assert re.search(message, refused(capsys, *argv))


@pytest.mark.parametrize(
  ("field", "message"),
  [
    ("optim.lrr=1", r"no field config.optim.lrr.*'lr'"),
    ("seed.x=1", "config.seed is a value"),
    ("steps=many", "config.steps='many' is no int"),
    ("fsdp=maybe", "config.fsdp='maybe' is no bool"),
    ("optim=sgd", "config.optim holds the fields"),
    ("task=pretrian", "tasks has no 'pretrian'.*'pretrain'"),
    ("data.name=imagenet", "data has no 'imagenet'.*'folder'"),
    ("data.splt=x", r"data 'digits' has no field 'splt'.*'split'"),
    ("data.split=trane", "trane.*train"),
    ("method.name=kdeep", "methods has no 'kdeep'.*'kdep'"),
    ("method.align.name=svdd", "align has no 'svdd'.*'svd'"),
    ("losses.feature=0.0", "kdep has no loss term with a weight"),
    ("losses.nst=1.0", "no field config.losses.nst"),
    ("student.name=resnet19", "no model 'resnet19'.*'resnet18'"),
    ("student.overrides.wdth=2", "resnet18 has no option 'wdth'"),
    ("teacher.source=none", r"teacher taps \['feature'\].*offers \[\]"),
    ("teacher.source=store", "teachers has no 'store'.*'online'"),
    ("eval.evals=('svm',)", "two labelled sets"),
    ("batch_size=0", "batch_size is 0"),
    ("batch_size=256", "batch_size=256 exceeds the source's 200 records"),
    ("accum_steps=5", "batch_size is 32; it must be a positive multiple of 5"),
    ("steps=0", "steps=0 leaves no step"),
    ("optim.name=adam", "optim.name is 'adam'"),
    ("ema_decay=1.0", "ema_decay is 1.0"),
    ("preprocess.augment=mix", "preprocess.augment='mix'"),
    ("losses.ce=1.0", "term ce needs labels"),
    ("losses.kl=1.0", "student has 12 and the teacher 24"),
    ("dtype=float33", "float33"),
    ("teacher.weights=", "'resnet18' has no weights"),
    ("teacher.weights=timm/resnet18.a1_in1k", "cannot download"),
    ("teacher.weights=/nosuch/file.pth", "/nosuch/file.pth"),
    ("init_from=/nosuch/student", "no file or directory '/nosuch/student'"),
    ("losses.fsp=1.0", r"student have \[4, 8, 8, 12\] channels"),
    ("method.temperature=abc", "'abc' is no float; .* Write a number"),
    ("method.temperature=-1.0", "needs temperature > 0"),
    ("student.overrides.layers=5", "is no tuple"),
    ("student.overrides.layers=(1,)", "tuple of 4 positive integers"),
    ("student.overrides.block=1", "block is 1 .int.; it must be of the type s"),
    ("data.labels=3", "data 'digits': labels is 3 .int.; .* bool"),
    ("data.name=folder", r"data 'folder' needs the fields \['dir'\]"),
    ("eval.batch_size=0", "eval.batch_size is 0; .*--config.eval.batch_size=1"),
    ("checkpoint.keep=0", "checkpoint.keep is 0"),
    ("seed=-1", "config.seed is -1; it must be at least 0"),
    ("checkpoint.every=-1", "config.checkpoint.every is -1"),
    ("optim.warmup=-1", "optim.warmup is -1"),
  ],
)
def test_fields(field, message, teacher, tmp_path, capsys, monkeypatch):
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  fields = [f"teacher.weights={teacher}", field]
  line = try_tiny(capsys, tmp_path / "run", *fields)
  assert re.search(message, line), line


def test_evals_need_labels(teacher, tmp_path, capsys):
  fields = [
    f"teacher.weights={teacher}",
    "steps=1",
    "eval.evals=('knn',)",
    "eval.train.name=digits",
    "eval.test.name=digits",
    "eval.test.labels=False",
  ]
  line = try_tiny(capsys, tmp_path / "run", *fields)
  assert (
    "config.eval.test has none" in line and "--config.eval.evals=()" in line
  )


def test_evals_read_vectors(teacher, tmp_path, capsys):
  fields = [
    f"teacher.weights={teacher}",
    "eval.evals=('knn',)",
    "eval.train.name=digits",
    "eval.test.name=digits",
    "eval.tap=stage1",
  ]
  line = try_tiny(capsys, tmp_path / "run", *fields)
  assert re.search(
    r"config.eval.tap is 'stage1'.*\['feature', .*'pooled'", line
  )


def test_teachers_that_are_broken_or_of_another_kind(teacher, tmp_path, capsys):
  other = runs.save_teacher(tmp_path / "other", channels=(4, 8, 16, 24))
  shutil.copy(other / "model.safetensors", tmp_path / "bare.safetensors")
  line = try_tiny(
    capsys, tmp_path / "a", f"teacher.weights={tmp_path}/bare.safetensors"
  )
  assert "the tensors do not fit the model" in line
  cut = tmp_path / "cut.safetensors"
  cut.write_bytes((teacher / "model.safetensors").read_bytes()[:-100])
  line = try_tiny(capsys, tmp_path / "b", f"teacher.weights={cut}")
  assert str(cut) in line
  fields = [f"teacher.weights={teacher}", "teacher.name=resnet50"]
  line = try_tiny(capsys, tmp_path / "c", *fields)
  assert "says 'resnet18', not 'resnet50'" in line


def test_workdirs(teacher, tmp_path, capsys, brief):
  weights = f"teacher.weights={teacher}"
  assert main.main(runs.arguments(tmp_path, weights, "dry_run=True")) == 0
  said = capsys.readouterr().err
  assert "student parameters" in said and "n x 24" in said
  assert not (tmp_path / "checkpoints").exists()
  assert main.main(runs.arguments(tmp_path, weights, "steps=1")) == 0
  capsys.readouterr()
  line = try_tiny(capsys, tmp_path, weights, "steps=1", "optim.lr=0.5")
  assert "holds another experiment: ['optim.lr'] differ" in line
  older = json.loads((tmp_path / "config.json").read_text())
  assert older["preprocess"].pop("crop_mode") == ""  # a field since then
  (tmp_path / "config.json").write_text(json.dumps(older))
  assert main.main(runs.arguments(tmp_path, weights, "steps=1")) == 0
  below = tmp_path / "config.json" / "run"
  line = try_tiny(capsys, below, weights)
  assert f"the workdir {below} cannot be written" in line


def test_a_workdir_without_results_is_free(teacher, tmp_path, capsys, brief):
  weights = f"teacher.weights={teacher}"
  assert "256" in try_tiny(capsys, tmp_path, weights, "batch_size=256")
  arguments = runs.arguments(tmp_path, weights, "dry_run=True")
  assert main.main(arguments) == 0
  config = json.loads((tmp_path / "config.json").read_text())
  assert config["batch_size"] == 32
  (tmp_path / "student").mkdir()
  (tmp_path / "student" / "model.safetensors").touch()
  (tmp_path / "config.json").write_text("{")
  line = try_tiny(capsys, tmp_path, weights)
  assert "config.json is damaged" in line and "another --workdir" in line


def test_artifacts_are_shared_but_not_mixed_up(teacher, tmp_path, capsys):
  weights = f"teacher.weights={teacher}"
  arguments = runs.arguments(tmp_path / "fit", weights, "task=fit_svd")
  assert main.main(arguments) == 0
  out = capsys.readouterr().out
  assert "200 rows" in out and re.search(r"16 of 24 directions: \d", out)
  kept = f"fit.artifact={tmp_path}/fit/artifact.npz"
  other = runs.save_teacher(tmp_path / "other", zero_init_last=True)
  line = try_tiny(capsys, tmp_path / "run", f"teacher.weights={other}", kept)
  assert re.search("artifact.npz was fitted for '.*', this run needs", line)
  assert (
    main.main(runs.arguments(tmp_path / "x", weights, kept, "steps=1")) == 0
  )
  assert not (tmp_path / "x" / "artifact.npz").exists()


def test_folders(teacher, images, tmp_path, capsys):
  fields = [f"teacher.weights={teacher}", *FOLDER]
  (tmp_path / "empty").mkdir()
  line = try_tiny(capsys, tmp_path / "a", *fields, f"data.dir={tmp_path}/empty")
  assert "holds no image" in line and ".webp" in line
  line = try_tiny(capsys, tmp_path / "b", *fields, f"data.dir={tmp_path}/none")
  assert "is not a directory" in line and "--config.data.dir" in line
  (images / "a" / "6.jpg").write_bytes(b"no image at all")
  line = try_tiny(capsys, tmp_path / "c", *fields, f"data.dir={images}")
  assert str(images / "a" / "6.jpg") in line


@pytest.mark.slow
def test_an_image_that_breaks_the_run_midway_is_named_once(
  teacher, images, tmp_path
):
  (images / "a" / "6.jpg").write_bytes(b"no image at all")
  fields = [
    *(f"teacher.weights={teacher}", *FOLDER, f"data.dir={images}"),
    *("method.align.name=linear", "steps=50", "checkpoint.every=1"),
  ]
  status, error = runs.finish(runs.start(tmp_path / "run", *fields))
  assert status == 1 and error.count("6.jpg") == 1
  assert "Traceback" not in error and "thread" not in error
  line = error.splitlines()[-1]
  assert line.startswith("error: ") and str(images / "a" / "6.jpg") in line
  assert not (tmp_path / "run" / "artifact.npz").exists()


def test_an_unsorted_folder_is_enough(teacher, images, tmp_path):
  """The README's promise: no labels, no classes, other sizes."""
  for path in list(images.rglob("*.jpg")):
    path.rename(images / path.name)
  fields = [f"teacher.weights={teacher}", *FOLDER, f"data.dir={images}"]
  arguments = runs.arguments(tmp_path / "run", *fields)
  assert main.main([*arguments, "--config.preprocess.augment=crop"]) == 0
  last = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]
  assert json.loads(last)["eval/feature_error"] > 0


def test_a_real_process_ends_with_status_1_and_one_line(tmp_path):
  done = subprocess.run(
    [sys.executable, "-m", "kd_jax.main", "--config", "configs/kdep_r18.py"]
    + ["--workdir", str(tmp_path)],
    cwd=runs.ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 1 and done.stdout == ""
  assert done.stderr.count("\n") == 1
  assert "imagenet2012" in done.stderr


@pytest.mark.parametrize(
  ("error", "status", "message"),
  [
    (KeyboardInterrupt(), 130, "interrupted; the same command starts again"),
    (
      jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB\nmore"),
      1,
      "error: the device is out of memory (RESOURCE_EXHAUSTED: 9 GB). Lower "
      "--config.batch_size",
    ),
  ],
)
def test_ends_that_are_nobody_s_mistake(
  error, status, message, tmp_path, capsys, monkeypatch
):
  def fail(*_):
    raise error

  monkeypatch.setattr("kd_jax.build.training.method", fail)
  assert main.main(runs.arguments(tmp_path)) == status
  said = capsys.readouterr().err
  assert said.startswith(message) and said.count("\n") == 1


@pytest.mark.parametrize(
  ("text", "status", "message"),
  [
    ("", 0, "stopped after step 3"),
    ("75", 75, "stopped after step 3"),
    ("-1", 1, "error: KD_JAX_STOP_STATUS is '-1'; it must be an exit status"),
    ("256", 1, "error: KD_JAX_STOP_STATUS is '256'"),
  ],
)
def test_a_run_that_was_stopped_may_have_a_status_of_its_own(
  text, status, message, tmp_path, capsys, monkeypatch
):
  def stop(*_):
    raise Stopped("stopped after step 3")

  monkeypatch.setenv("KD_JAX_STOP_STATUS", text)
  monkeypatch.setattr("kd_jax.tasks.pretrain.run", stop)
  assert main.main(runs.arguments(tmp_path)) == status
  said = capsys.readouterr().err
  assert said.startswith(message) and said.count("\n") == 1


def test_a_bug_keeps_its_traceback(teacher, tmp_path, capsys, monkeypatch):
  def broken(*_, **__):
    return np.zeros(3).reshape(2, 2)

  monkeypatch.setattr("kd_jax.build.training.method", broken)
  assert main.main(runs.arguments(tmp_path, f"teacher.weights={teacher}")) == 1
  said = capsys.readouterr().err
  assert "broken" in said and "cannot reshape" in said


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_freed_memory_is_kept_for_the_next_step():
  code = """if True:
    import numpy as np, resource
    from kd_jax import main
    assert main.keep_memory()
    faults = []
    for _ in range(3):
      before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
      np.ones(2**25, np.uint8).sum()
      faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert faults[0] > 100 and faults[2] < 50, faults
  """
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  subprocess.run([sys.executable, "-c", code], check=True, env=env)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_large_blocks_of_a_step_are_kept_for_the_next_one():
  code = """if True:
    import jax, resource
    from kd_jax import main
    assert main.keep_memory()
    kernel = jax.numpy.ones((2**13, 8))
    step = jax.jit(lambda x: jax.numpy.sin(x).reshape(2**12, -1) @ kernel)
    x = jax.numpy.ones(2**25)  # 128 MiB, and as much between the two
    faults = []
    for _ in range(8):
      before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
      step(x).block_until_ready()
      faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    # A block may be freed only after the next step has begun.
    assert faults[0] > 10_000 and faults[-1] < 1_000, faults
  """
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_memory_of_an_accelerators_host_stays_as_it_is(monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "")
  found = lambda *, group: [group]  # noqa: E731
  monkeypatch.setattr("importlib.metadata.entry_points", found)
  assert not main.keep_memory()
