"""Banks written and read by the command line: equal, whole, or refused."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from bank_case import (
  CROPS,
  FEATURE,
  LOGITS,
  PLAIN,
  STEPS,
  assert_same_bank,
  assert_same_training,
  between,
  crops,
  files,
  refused,
  run,
  shards,
  stored,
  viewed,
  write,
)
from safetensors import numpy as safetensors_numpy

import runs
from kd_jax import config as config_lib
from kd_jax.build import images
from kd_jax.data.bank import Bank, compatibility


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("banks")


@pytest.fixture(scope="module")
def teachers(folder):
  """{classes: fields that name a teacher}."""
  found = {}
  for classes in (0, 10):
    path = runs.save_teacher(folder / f"teacher{classes}", num_classes=classes)
    number = f"teacher.overrides.num_classes={classes}"
    found[classes] = (f"teacher.weights={path}", number)
  return found


@pytest.fixture(scope="module")
def bank(folder, teachers):
  """Two passes of float32 features, in five shards each."""
  return write(folder / "feature", *teachers[0], *FEATURE, "bank.passes=2")


@pytest.fixture(scope="module")
def aligned(folder, teachers):
  """A pass of 8 directions in 8 bits."""
  codec = ("name=aligned", "width=8", "dtype=int8")
  fields = [f"bank.codec.{field}" for field in codec]
  return write(folder / "aligned", *teachers[0], *FEATURE, *fields)


def test_two_epochs_of_features_are_those_of_the_running_teacher(
  folder, teachers, bank
):
  assert run(folder / "online", *teachers[0], *FEATURE) == 0
  assert run(folder / "stored", *stored(bank), *FEATURE) == 0
  assert_same_training(folder / "stored", folder / "online")


@pytest.mark.slow
def test_two_crops_of_logits_are_those_of_the_running_teacher(folder, teachers):
  fields = ("bank.codec.tap=logits", "bank.passes=2")
  place = write(folder / "logits", *teachers[10], *LOGITS, *fields)
  assert run(folder / "online_kl", *teachers[10], *LOGITS) == 0
  assert run(folder / "stored_kl", *stored(place), *LOGITS) == 0
  assert_same_training(folder / "stored_kl", folder / "online_kl")
  fkd = {"variant": "fkd"}
  assert run(folder / "online_fkd", *teachers[10], *CROPS, **fkd) == 0
  assert run(folder / "stored_fkd", *stored(place), *CROPS, **fkd) == 0
  assert_same_training(folder / "stored_fkd", folder / "online_fkd")


@pytest.mark.slow
def test_passes_that_are_added_do_not_change_a_run(folder, teachers, capsys):
  fields = (*teachers[0], *FEATURE)
  place = write(folder / "grows", *fields)
  learn = (*stored(place), *FEATURE, "checkpoint.every=5", "checkpoint.keep=9")
  where = folder / "one_pass"
  assert run(where, *learn) == 0
  quiet = runs.state(where, STEPS)
  assert runs.record(where, STEPS)["passes"] == 1
  shutil.rmtree(where / "student")
  for step in (15, STEPS):  # as if it had been killed after step 10, its pass
    shutil.rmtree(where / "checkpoints" / str(step))
  write(folder / "grows", *fields, "bank.passes=2")
  assert Bank(str(place)).num_passes == 2
  assert run(where, *learn) == 0
  again = runs.state(where, STEPS)
  assert set(again) == set(quiet) and len(quiet) > 90
  for name, array in quiet.items():
    np.testing.assert_array_equal(again[name], array, err_msg=name)
  for path in where.glob("checkpoints/*/record/metadata"):
    path.write_text(path.read_text().replace(', "passes": 1', ""))
  assert "passes" not in runs.record(where, STEPS)  # as older runs left it
  assert run(where, *learn) == 0
  # A new run uses both, and so it is another one from the second epoch on.
  new = folder / "two_passes"
  assert run(new, *learn) == 0
  assert runs.record(new, STEPS)["passes"] == 2
  kernel = "['params']['student']['stem']['conv1']['kernel']"
  same = [
    np.array_equal(
      runs.state(new, step)[kernel], runs.state(where, step)[kernel]
    )
    for step in (10, STEPS)
  ]
  assert same == [True, False]
  shutil.rmtree(place / "pass0001")
  capsys.readouterr()
  assert run(new, *learn) == 1
  said = capsys.readouterr().err
  assert "began with 2 passes" in said and "has 1 now; write them" in said


@pytest.mark.slow
def test_killed_writers_leave_the_bank_of_a_quiet_one(folder, teachers):
  fields = (*teachers[0], "batch_size=20", "data.split=train", "bank.shard=16")
  quiet, killed = folder / "quiet", folder / "killed"
  for moment in (between, lambda where: shards(where, 1) > 5):
    passes = (*fields, "bank.passes=2")
    runs.kill(moment, killed, *passes, variant="bank")
    assert Bank(str(killed / "bank")).num_passes < 2
  write(killed, *fields, "bank.passes=2")
  # Another way to the same bank: a pass, its price, and later a second one.
  write(quiet, *fields)
  before = files(quiet / "bank")
  assert run(quiet, *fields, "dry_run=True", variant="bank") == 0
  assert files(quiet / "bank") == before
  write(quiet, *fields, "bank.passes=2")
  assert_same_bank(killed / "bank", quiet / "bank")
  bank = Bank(str(quiet / "bank"))
  assert bank.num_passes == 2 and bank.header.num_shards == 90
  assert (crops(bank.place, 0) != crops(bank.place, 1)).any()
  values = bank.shard(1, 89)["values"]
  assert values.shape == (13, 1, 24) and values.std(0).min() > 0


@pytest.mark.slow
def test_two_processes_write_one_bank(folder, teachers, aligned):
  where = folder / "together"
  codec = ("name=aligned", "width=8", "dtype=int8")
  fields = [*teachers[0], *FEATURE, *(f"bank.codec.{c}" for c in codec)]
  done = subprocess.run(
    [
      runs.ROOT / "launch" / "local.sh",
      "2",
      *runs.arguments(where, *fields, variant="bank")[1:],
    ],
    cwd=runs.ROOT,
    env={
      **os.environ,
      **runs.ENV,
      "PYTHON": sys.executable,
      "KD_JAX_DEVICES_PER_PROCESS": "1",
    },
    capture_output=True,
    text=True,
    timeout=runs.PATIENCE,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  ours, theirs = Bank(str(where / "bank")), Bank(str(aligned))
  assert list(ours.damaged()) == [] and ours.num_passes == 1
  for shard in range(theirs.header.num_shards):
    one, two = ours.shard(0, shard), theirs.shard(0, shard)
    assert np.array_equal(one["geometry"], two["geometry"])
    # The basis is that of two devices.
    apart = np.int16(one["directions"]) - np.int16(two["directions"])
    assert np.abs(apart).max() <= 1 and two["directions"].std() > 10


def test_price_before_anything_is_written(folder, teachers, capsys):
  where = folder / "price"
  fields = (*teachers[0], *FEATURE, "bank.passes=50", "dry_run=True")
  assert run(where, *fields, "bank.price_per_hour=3", variant="bank") == 0
  said = capsys.readouterr().err
  assert "200 images x 50 passes x 1 crops, 110 bytes each: 0.0011 GB" in said
  assert " hours at " in said and " crops/s" in said and "in money" in said
  assert not (where / "bank").exists()


SHARD = "pass0000/values/c/1/0/0"


@pytest.fixture
def damaged(bank, tmp_path):
  return shutil.copytree(bank, tmp_path / "bank")


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def test_nothing_is_trained_on_a_flipped_bit(damaged, tmp_path, capsys):
  for file in damaged.glob("pass000*/values/c/*/0/0"):
    flip(file)  # so that the first batch has one
  fields = (*stored(damaged), *PLAIN, "losses.feature=0.0", "losses.rkd=1.0")
  said = refused(capsys, tmp_path / "run", *fields)
  assert f"error: the bank {damaged} is damaged: " in said
  place = f"bank.place={damaged}"
  verify = ("bank.verify=True", place, *PLAIN)
  assert run(tmp_path / "verify", *verify, variant="bank") == 1
  said = capsys.readouterr().err
  assert "damaged in 10 places, listed above" in said
  assert all(f"pass 1, shard {shard}: " in said for shard in range(5))


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (os.remove, f"{SHARD} is missing. Delete pass0000/shards/00001.json"),
    (lambda p: os.truncate(p, 99), f"{SHARD} has 99 bytes, not "),
    (
      lambda p: os.remove(p.parents[4] / "shards" / "00001.json"),
      "has no complete pass; run the config that writes it again",
    ),
    (
      lambda p: os.truncate(p.parents[5] / "constants.npz", 9),
      "constants.npz is damaged",
    ),
    (
      lambda p: (p.parents[5] / "bank.json").write_text("{}"),
      "bank.json is damaged",
    ),
  ],
  ids=("lost", "cut", "no manifest", "constants", "header"),
)
def test_damage_shows_before_the_first_step(
  damaged, tmp_path, capsys, damage, message
):
  damage(damaged / SHARD)
  said = refused(capsys, tmp_path / "run", *stored(damaged), *FEATURE)
  assert message in said


def test_a_student_is_evaluated_as_its_teacher_would_be(folder, teachers):
  views = (
    "preprocess.interpolation=bilinear",
    "preprocess.crop_pct=0.5",
    "preprocess.crop_mode=squash",
  )
  place = write(folder / "views", *teachers[0], *views)
  config = config_lib.load(str(runs.CONFIG), stored(place))
  found = viewed(config)
  assert (found.interpolation, found.crop_pct) == ("bilinear", 1.0)
  config.preprocess.crop_pct = 0.0  # as its teacher
  found = viewed(config)
  assert (found.interpolation, found.crop_pct) == ("bilinear", 0.5)
  assert found.crop_mode == "squash"
  compatibility.check(
    Bank(str(place)), found, images.source(config.data.to_dict())
  )
  config.preprocess.crop_mode = "center"
  found = viewed(config)
  with pytest.raises(ValueError, match="preprocess.crop_mode is "):
    compatibility.check(
      Bank(str(place)), found, images.source(config.data.to_dict())
    )


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (("data.split=train[:199]",), "images is '.*records is 199 here and 200"),
    (("data.split=test[:200]",), "belongs to other crops: images is"),
    (("preprocess.shift=0", "preprocess.augment=none"), "preprocess.augment"),
    (("preprocess.crop_pct=0.875",), "preprocess.crop_pct is 0.875 here and 1"),
    (("preprocess.image_size=16",), "preprocess.image_size is 16 here and 8"),
    (("preprocess.num_crops=2",), "stores 1 crops of an image per pass, which"),
    (
      ("student.overrides.channels=(4,8,8,9)",),
      "8 directions of the teacher's "
      "24, and the student has 9 channels; write one with codec.width=9",
    ),
    (("losses.kl=1.0",), r"reads the teacher taps \['logits'\]; this teacher"),
    (("losses.fsp=1.0",), "reads the teacher taps .*'stage1'"),
  ],
)
def test_a_bank_of_something_else(aligned, tmp_path, capsys, fields, message):
  said = refused(capsys, tmp_path / "run", *stored(aligned), *FEATURE, *fields)
  assert re.search(message, said), said


def test_a_basis_of_another_teacher(folder, aligned, bank, tmp_path, capsys):
  del aligned  # its writer left a basis
  artifact = f"fit.artifact={folder / 'aligned' / 'artifact.npz'}"
  said = refused(capsys, tmp_path / "run", *stored(bank), *FEATURE, artifact)
  assert "artifact.npz was fitted for" in said


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ((), "teacher is '.*' here and '.*' in the bank"),
    (("preprocess.shift=2",), "views is .*'shift': 2.* here"),
    (("preprocess.interpolation=bilinear",), "seen is .*'bilinear'.* here"),
    (("seed=0",), "seed is 0 here and 1 in the bank"),
    (("bank.codec.width=7",), "codec is .*'width': 7"),
    (("data.split=test[:200]",), "images is"),
  ],
)
def test_a_bank_is_not_continued_with_something_else(
  folder, teachers, aligned, capsys, fields, message
):
  before = files(aligned)
  codec = ("name=aligned", "width=8", "dtype=int8")
  same = (*teachers[0], *FEATURE, *(f"bank.codec.{field}" for field in codec))
  # The last of two values of a field counts.
  fields = (*same, *(fields or teachers[10]), "bank.passes=2")
  said = refused(capsys, folder / "aligned", *fields, variant="bank")
  assert f"there is another bank at '{aligned}'" in said.splitlines()[-1]
  assert re.search(message, said), said
  assert files(aligned) == before


def test_training_is_not_continued_on_another_bank(
  aligned, bank, tmp_path, capsys
):
  place = shutil.copytree(aligned, tmp_path / "bank")
  narrow = "student.overrides.channels=(4,8,8,8)"
  fields = (*stored(place), "batch_size=20", "steps=2", narrow)
  assert run(tmp_path / "run", *fields) == 0
  shutil.rmtree(place)
  shutil.copytree(bank, place)
  capsys.readouterr()
  assert run(tmp_path / "run", *fields) == 1
  said = capsys.readouterr().err
  assert "what checkpoint 2 was trained on has changed: ['teacher']" in said


def test_a_teacher_that_overflows_fills_no_bank(tmp_path, capsys):
  teacher = runs.save_teacher(tmp_path / "teacher")
  path = tmp_path / "teacher" / "model.safetensors"
  weights = safetensors_numpy.load_file(path)
  weights["layer4.0.bn2.bias"] = weights["layer4.0.bn2.bias"] + np.inf
  safetensors_numpy.save_file(weights, path)
  fields = (f"teacher.weights={teacher}", *FEATURE)
  said = refused(capsys, tmp_path / "run", *fields, variant="bank")
  assert "says NaN or infinity about one of the records range(0, 48)" in said
  assert not [*tmp_path.rglob("shards/*")]
