"""Banks of maps, written and learnt from by the command line."""

import re
import shutil

import jax
import numpy as np
import pytest
from bank_case import (
  FEATURE,
  STEPS,
  assert_same_training,
  files,
  refused,
  run,
  shards,
  stored,
  write,
)

import runs
from kd_jax import config as config_lib
from kd_jax.build import images, networks
from kd_jax.data import pipeline
from kd_jax.data.bank import Bank

pytestmark = pytest.mark.slow
FLIPS = (*FEATURE, "preprocess.hflip=0.5")
WRITE = (*FLIPS, "bank.codec.name=maps")
MAPS = {"variant": "maps"}


def directions(**kept):
  return f"bank.codec.directions={kept}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("maps")


@pytest.fixture(scope="module")
def teacher(folder):
  path = runs.save_teacher(folder / "teacher")
  return (f"teacher.weights={path}",)


@pytest.fixture(scope="module")
def whole(folder, teacher):
  """All directions in float32."""
  kept = directions(stage2=0, feature=0)
  fields = (*teacher, *WRITE, kept, "bank.codec.dtype=float32")
  return write(folder / "whole", *fields, "bank.passes=2")


def test_a_student_of_stored_maps_is_that_of_the_running_teacher(
  folder, teacher, whole
):
  assert run(folder / "online", *teacher, *FLIPS, **MAPS) == 0
  fields = (*stored(whole), *FLIPS, "checkpoint.every=5")
  assert run(folder / "stored", *fields, **MAPS) == 0
  assert_same_training(folder / "stored", folder / "online")
  # The bank's own basis is read, nothing is fitted anew.
  assert [*(folder / "online").glob("artifact_*.npz")]
  assert not [*(folder / "stored").glob("artifact*.npz")]
  quiet = runs.state(folder / "stored", STEPS)
  for step in (15, STEPS):  # as if it had been killed after step 10
    shutil.rmtree(folder / "stored" / "checkpoints" / str(step), True)
  shutil.rmtree(folder / "stored" / "student")
  assert run(folder / "stored", *fields, **MAPS) == 0
  for name, array in runs.state(folder / "stored", STEPS).items():
    np.testing.assert_array_equal(array, quiet[name], err_msg=name)


def test_a_stored_map_is_of_the_crop_and_flip_that_the_student_sees(
  teacher, whole
):
  config = config_lib.load(f"{runs.CONFIG}:maps", (*FLIPS, *teacher))
  running = networks.teaching(config)
  reader = networks.teaching(
    config_lib.load(f"{runs.CONFIG}:maps", (*FLIPS, *stored(whole)))
  )
  views = images.preprocess(
    config.preprocess.to_dict(), running.source.evaluation_view
  )
  with pipeline.train_batches(
    images.source(config.data.to_dict()),
    views,
    batch_size=20,
    seed=7,
    bank=reader.bank,
  ) as stream:
    batch = next(stream)
  seen = batch.replace(image=np.float32(batch.image) / 255)
  found = []
  for teaching in (running, reader):
    frozen = {"teacher": teaching.variables, "artifact": {}}
    ask = jax.jit(lambda f, x, s=teaching.source: dict(s(f, x).taps))
    found.append(ask(frozen, seen)["stage2"])
  want, got = found
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
  assert np.abs(want[:, :, ::-1] - got).max() > 0.1


def test_bytes_and_error_are_said_before_anything_is_written(
  folder, teacher, capsys
):
  where = folder / "price"
  fields = (*teacher, *WRITE, directions(stage2=4), "dry_run=True")
  assert run(where, *fields, variant="bank") == 0
  said = capsys.readouterr().err
  assert "200 images x 1 passes x 1 crops, 78 bytes each: 1.56e-05 GB" in said
  found = re.search(
    r"stage2: 4 directions in int8 of 16 positions; of its variance (.*)% does "
    r"not come back .* set no scale, (.*)% because it is in other directions",
    said,
  )
  lost, beyond = (float(found[k]) for k in (1, 2))
  assert 1 < beyond < lost < beyond + 0.1
  assert not (where / "bank").exists()


def test_a_writer_of_maps_goes_on_with_the_shards_that_are_missing(
  folder, teacher
):
  where = folder / "grown"
  fields = (*teacher, *WRITE, directions(stage2=4))
  place = write(where, *fields)
  before = files(place)
  shutil.rmtree(place / "pass0000" / "stage2" / "c" / "1")
  (place / "pass0000" / "shards" / "00001.json").unlink()
  assert files(place) != before
  write(where, *fields)
  assert files(place) == before and shards(where) == 5
  found = Bank(str(place)).shard(0, 4)["stage2"]
  assert found.shape == (8, 1, 4, 4, 4) and found.std() > 10


def test_a_bank_without_the_maps_that_a_method_reads(
  folder, teacher, whole, tmp_path, capsys
):
  place = write(folder / "vectors", *teacher, *FEATURE)
  said = refused(capsys, tmp_path / "run", *stored(place), *FEATURE, **MAPS)
  assert "reads the teacher taps ['stage2']" in said
  assert "--config.bank.codec.directions=\"{'stage2': 256}\"" in said
  said = refused(
    capsys,
    tmp_path / "run",
    *stored(whole),
    *FLIPS,
    "method.student=stage1",
    "method.teacher=stage1",
    **MAPS,
  )
  assert "reads the teacher taps ['stage1']" in said
  fields = (*teacher, *WRITE, directions(stage2=9))
  assert run(tmp_path / "wide", *fields, variant="bank") == 1
  said = capsys.readouterr().err
  assert "directions.stage2 is 9; the teacher's tap has 8 channels" in said
  few = write(folder / "few", *teacher, *WRITE, directions(stage2=4, feature=0))
  said = refused(capsys, tmp_path / "run", *stored(few), *FLIPS, **MAPS)
  assert "codec.directions.stage2=8" in said
