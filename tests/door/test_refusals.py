"""What a newcomer gets wrong ends in one line, before anything is written."""

import builtins
import os
import shutil
import signal
import sys

import numpy as np
import pytest
from door_case import STUDENT, command, photographs, refused

import kd_jax
from kd_jax import __main__, cli, main, processes
from kd_jax.door import distill, doctor, photos, recipe, teachers, written


@pytest.fixture(scope="module")
def place(tmp_path_factory, teacher):
  """A folder with all that can be named wrongly, and the right things."""
  root = tmp_path_factory.mktemp("place")
  photographs(root / "photos", count=12)
  photographs(root / "few", count=3)
  (root / "empty").mkdir()
  (root / "broken").mkdir()
  for i in range(9):
    (root / "broken" / f"{i}.jpg").write_bytes(b"no image at all")
  shutil.copytree(teacher, root / "teacher")
  shutil.copytree(teacher, root / "nameless")
  (root / "nameless" / "config.json").unlink()
  shutil.copytree(teacher, root / "torn")
  (root / "torn" / "model.safetensors").write_bytes(b"short")
  shutil.copytree(teacher, root / "confused")
  (root / "confused" / "config.json").write_text("{")
  (root / "file.txt").write_text("text")
  return root


GOOD = {
  "images": "photos",
  "teacher": "teacher",
  "student": STUDENT,
  "out": "new",
  "image-size": "32",
}
DISTILL = [
  ({"images": "nowhere"}, "images must be a folder, and .*nowhere does not"),
  ({"images": "file.txt"}, "images must be a folder, and .*file.txt is a file"),
  ({"images": "empty"}, "no image"),
  ({"images": "few"}, "few holds 3 images; a student needs 8 at least"),
  ({"images": "broken"}, "none of the 9 images .*0.jpg for one"),
  ({"images": "gs://bucket/photos"}, "images is gs://.* docs/data.md"),
  ({"images": ""}, "no folder of images is named"),
  ({"teacher": "dinov2-bas"}, "no teacher 'dinov2-bas'; near are dinov2-base,"),
  ({"teacher": "regnety_040"}, "'regnety_040' says no weights; add timm's tag"),
  (
    {"teacher": "./nowhere"},
    r"there is no \./nowhere; a teacher is a name, or",
  ),
  ({"teacher": "nameless"}, "no config.json that names an architecture"),
  ({"teacher": "torn"}, "model.safetensors cannot be read"),
  ({"teacher": "confused"}, "config.json cannot be read"),
  ({"teacher": "file.txt"}, "no student|there is no teacher 'file.txt'"),
  ({"teacher": "./file.txt"}, "file.txt is no checkpoint; a teacher is a name"),
  ({"teacher": "empty"}, "no config.json that names an architecture"),
  ({"teacher": ""}, "no teacher is named; it is one of"),
  (
    {"teacher-weights": "x.pth"},
    "teacher is a checkpoint, and teacher_weights",
  ),
  (
    {"teacher": "resnet50", "teacher-weights": "x.pth"},
    "there is no 'x.pth'; teacher_weights is a file",
  ),
  ({"student": "resnet81"}, "no student 'resnet81'; near are resnet18"),
  ({"student": ""}, "no student ''; nothing is near it"),
  (
    {"method": "kdepp"},
    r"method is 'kdepp'; this command has \['kdep', 'scalekd', 'stagewise'\]",
  ),
  ({"steps": "0"}, "steps is 0; it must be a whole number of at least 1"),
  ({"steps": "many"}, "argument --steps: invalid int value: 'many'"),
  ({"batch-size": "13"}, "batch_size is 13, and there are 12 images"),
  ({"image-size": "-5"}, "image_size is -5; it must be a whole number"),
  ({"seed": "-1"}, "seed is -1; it must be at least 0"),
  ({"seed": "9" * 20}, "seed is 9+; it must be .* less than 4294967296"),
  ({"image-size": "100000"}, r"needs \d+ GB, and there are [\d.]+; lower them"),
  ({"images": "photos/*.jpg"}, r"photos/\*.jpg does not exist"),
  ({"out": "photos/new"}, "which lies in photos: the pictures of the run"),
  ({"out": "photos"}, "out is photos, which lies in photos"),
  ({"out": "file.txt"}, "out is file.txt, and file.txt is a file"),
  ({"out": "file.txt/deep"}, "file.txt is a file; choose a folder"),
  ({"out": "/proc/mine"}, "/proc"),
  ({"out": "gs://bucket/run"}, "out is gs://.*docs/storage.md"),
  ({"size": "32"}, "unrecognized arguments: --size=32"),
]
OTHERS = [
  ((), "required: COMMAND"),
  (("train",), "invalid choice: 'train' .*'distill', 'embed'"),
  (("embed", "photos", "--model", "teacher"), "required: --out"),
  (("embed", "photos", "--model", "teacher", "--out", "f.csv"), r"\.npz or"),
  (("embed", "photos", "--model", "resnet5", "--out", "f.npz"), "no model"),
  (
    ("embed", "photos", "--model", "./no", "--out", "f.npz"),
    "no ./no; a model",
  ),
  (("embed", "empty", "--model", "teacher", "--out", "f.npz"), "no image"),
  (("embed", "broken", "--model", "teacher", "--out", "f.npz"), "broken/0.jpg"),
  (("embed", "few", "--model", "teacher", "--out", "empty.npz/"), "folder"),
  (
    ("embed", "few", "--model", "teacher", "--out", "f.npz", "--batch-size=0"),
    "batch_size is 0",
  ),
  (("export", "nowhere"), "there is no run 'nowhere'"),
  (("export", "few", "--format=tflite"), "format is 'tflite'; there are onnx"),
  (("export", "few", "--out=file.txt"), "out is file.txt, and file.txt is a"),
  (("export", "empty"), "empty is not the folder of a run"),
  (("models", "zzz"), "no network has 'zzz' in its name"),
  (("models", "["), r"no network has '\[' in its name"),
  (
    ("embed", "few", "--model", "./file.txt", "--out", "f.npz"),
    "file.txt is no checkpoint; a model is a name",
  ),
]


@pytest.mark.parametrize(("changed", "message"), DISTILL)
def test_distill(changed, message, place, monkeypatch):
  monkeypatch.chdir(place)
  flags = [f"--{name}={value}" for name, value in {**GOOD, **changed}.items()]
  refused(["distill", *flags], message)
  assert not (place / "new").exists()


@pytest.mark.parametrize(("argv", "message"), OTHERS)
def test_other_commands(argv, message, place, monkeypatch):
  monkeypatch.chdir(place)
  (place / "empty.npz").mkdir(exist_ok=True)
  refused(argv, message)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"images": None}, r"images is None \(NoneType\); it must be text or a"),
    ({"teacher": 3}, r"teacher is 3 \(int\)"),
    ({"student": 18}, r"student is 18 \(int\); it must be of the type str"),
    ({"steps": 2.5}, "steps is 2.5; it must be a whole number"),
    ({"steps": True}, "steps is True"),
    ({"seed": "one"}, r"seed is 'one' \(str\); it must be of the type int"),
    ({"seed": 1.0}, r"seed is 1.0 \(float\); it must be of the type int"),
    ({"steps": np.int64(0)}, "steps is 0; it must be a whole number"),
    ({"images": ["photos"]}, r"images is \['photos'\] \(list\)"),
    ({"method": None}, "method is None"),
  ],
)
def test_the_call(fields, message, place):
  good = {"images": place / "photos", "teacher": place / "teacher"}
  with pytest.raises(ValueError, match=message):
    kd_jax.distill(**{**good, **fields}, out=place / "new")
  assert not (place / "new").exists()


def test_a_folder_that_cannot_be_written(place, tmp_path, monkeypatch):
  monkeypatch.chdir(place)
  # The super-user may write anywhere, and may run the tests.
  monkeypatch.setattr(os, "access", lambda path, mode: False)
  flags = [f"--{k}={v}" for k, v in {**GOOD, "out": tmp_path / "x"}.items()]
  refused(["distill", *flags], "cannot be written; choose another folder")


@pytest.mark.parametrize(
  "stage",
  [
    (photos, "look"),
    (recipe, "plan"),
    (recipe.experiment_lib, "experiment"),
    (written, "keep"),
    (distill.pretrain, "run"),
    (distill.export, "run"),
  ],
  ids=lambda stage: f"{stage[0].__name__}.{stage[1]}",
)
def test_ctrl_c_at_every_stage(stage, place, monkeypatch):
  def stopped(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(*stage, stopped)
  monkeypatch.chdir(place)
  flags = {**GOOD, "out": "stopped", "steps": 1, "batch-size": 4}
  status, said = command("distill", *[f"--{k}={v}" for k, v in flags.items()])
  assert status == 130 and "Traceback" not in said
  assert said.endswith("interrupted; the same command starts again\n")


@pytest.mark.parametrize(
  ("place_of_it", "line"),
  [
    ("kd_jax.door.embed.load", "embed few --model teacher --out f.npz"),
    ("kd_jax.door.finished.labelled.split", "evaluate few --model teacher"),
    ("kd_jax.door.finished.compare.compare", "compare a b"),
    ("kd_jax.door.finished.push.push", "push a me/b"),
    ("kd_jax.door.distill.export_run", "export a"),
    ("kd_jax.door.listing.show", "models"),
    ("kd_jax.door.doctor.examine", "doctor"),
  ],
)
def test_ctrl_c_in_other_commands(place_of_it, line, place, monkeypatch):
  def stopped(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(place_of_it, stopped)
  monkeypatch.chdir(place)
  status, said = command(*line.split())
  assert status == 130 and "Traceback" not in said


def test_ctrl_c_ends_at_once_while_packages_are_imported(monkeypatch):
  seen = []

  def run(argv=None):
    seen.append(signal.getsignal(signal.SIGINT))
    main.prepare()
    seen.append(signal.getsignal(signal.SIGINT))
    return 7

  monkeypatch.setattr(cli, "main", run)
  usual = signal.getsignal(signal.SIGINT)
  try:
    for handler, expected in (
      (signal.default_int_handler, (signal.SIG_DFL, usual, signal.SIG_DFL)),
      (signal.SIG_IGN, (signal.SIG_IGN,) * 3),
    ):
      signal.signal(signal.SIGINT, handler)
      assert __main__.main() == 7
      assert (*seen, signal.getsignal(signal.SIGINT)) == expected
      seen.clear()
  finally:
    signal.signal(signal.SIGINT, usual)


def test_ctrl_c_while_jax_is_imported(monkeypatch):
  """Python forgets a module whose import failed, and cannot repeat JAX's."""

  def stopped(*args, **kwargs):
    monkeypatch.delitem(sys.modules, "jax")
    raise KeyboardInterrupt

  def fetched(name, *rest, **more):
    assert name != "jax" or "jax" in sys.modules, "JAX is imported again"
    return usual(name, *rest, **more)

  usual = builtins.__import__
  monkeypatch.setattr("kd_jax.door.listing.show", stopped)
  monkeypatch.setattr(builtins, "__import__", fetched)
  assert command("models")[0] == 130


@pytest.mark.parametrize(
  "error", [RuntimeError("no libtpu\n!"), AssertionError]
)
@pytest.mark.parametrize(
  "line",
  [
    "distill --images few --teacher teacher",
    "embed few --model teacher --out f.npz",
    "evaluate few --model teacher",
    "export teacher",
  ],
)
def test_devices_that_are_absent(line, error, place, monkeypatch):
  """As JAX_PLATFORMS=tpu where there is none, or =cuda."""

  def absent():
    raise error

  monkeypatch.setattr(processes.jax, "devices", absent)
  monkeypatch.setenv("JAX_PLATFORMS", "cuda")
  monkeypatch.chdir(place)
  refused(line.split(), "JAX cannot use the devices .* JAX_PLATFORMS is 'cuda'")


def test_the_calls_name_absent_devices_too(place, monkeypatch):
  def absent():
    raise AssertionError

  monkeypatch.setattr(processes.jax, "devices", absent)
  teacher = place / "teacher"
  for call in (
    lambda: kd_jax.embed(place / "photos", teacher),
    lambda: kd_jax.distill(place / "photos", teacher, out=place / "new"),
  ):
    with pytest.raises(ValueError, match="there is none"):
      call()


def test_a_name_that_is_no_text(place, teacher, tmp_path):
  photographs(tmp_path / "odd", count=1)
  name = os.fsdecode(b"\xff.jpg")
  shutil.copy(tmp_path / "odd" / "00.jpg", tmp_path / "odd" / name)
  with pytest.raises(ValueError, match=r"\.jpg' is not UTF-8"):
    kd_jax.embed(tmp_path / "odd", teacher, tmp_path / "f.parquet")
  names, _ = kd_jax.embed(tmp_path / "odd", teacher, tmp_path / "f.npz")
  assert names == ["00.jpg", name]


def test_a_pattern_prints_a_table(capsys):
  assert cli.main(["models", "resnet18*"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in lines] == [
    "model",
    "resnet18",
    "resnet18d",
  ]


def test_aliases_are_names_that_exist():
  from kd_jax import models

  ours = [full for name, full in teachers.ALIASES.items() if "3-" not in name]
  known = set(models.list_models())
  assert len(ours) > 12 and {full.split(".")[0] for full in ours} <= known
  assert teachers.choose("dinov2-base").weights == (
    "timm/vit_base_patch14_dinov2.lvd142m"
  )
  assert teachers.choose("resnet50").weights == "timm/resnet50.a1_in1k"
  plain = teachers.choose("resnet50", "random")
  assert (plain.source, plain.weights) == ("random", "")


def test_the_doctor_says_one_line_each_and_never_raises(monkeypatch, capsys):
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  monkeypatch.setattr(doctor, "_weights", lambda: ("", True))
  assert cli.main(["doctor"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 8 and all(line.startswith("ok") for line in lines)

  def broken():
    raise RuntimeError("no such thing\nmore")

  monkeypatch.setattr(doctor, "_devices", broken)
  assert cli.main(["doctor"]) == 1
  assert "BAD  devices   RuntimeError: no such thing\n" in (
    capsys.readouterr().out
  )


HELPED = "distill embed evaluate compare export push models doctor completion"


@pytest.mark.parametrize("name", ["", *HELPED.split()])
def test_help_fits_a_screen(name, capsys):
  with pytest.raises(SystemExit) as done:
    cli.main([*name.split(), "--help"])
  lines = capsys.readouterr().out.splitlines()
  assert done.value.code == 0
  assert len(lines) <= 24 and max(map(len, lines)) <= 80


def test_what_people_call_teachers_runs_in_jax(monkeypatch):
  monkeypatch.setattr(teachers.importlib.util, "find_spec", lambda name: None)
  for said, full in teachers.ALIASES.items():
    chosen = teachers.choose(said)
    assert (chosen.source, chosen.weights) == ("online", f"timm/{full}")
  with pytest.raises(ValueError, match="no teacher 'dinov3-bas'; near are"):
    teachers.choose("dinov3-bas")
