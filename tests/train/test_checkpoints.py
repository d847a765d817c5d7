"""Checkpoints that are damaged, foreign or cannot be written."""

import re
import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.train import checkpoints as checkpoints_lib
from kd_jax.types import TrainState


def state(step, size=4096, dtype=jnp.float32):
  weights = np.random.default_rng(step).standard_normal(size)
  return TrainState(
    step=jnp.asarray(step, jnp.int32),
    params={"student": {"w": jnp.asarray(weights, dtype), "b": jnp.ones(3)}},
    stats={"student": {}, "method": {}},
    opt=(jnp.full(3, 0.5),),
    ema={},
    rng=jax.random.key_data(jax.random.key(step)),
  )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  folder = tmp_path_factory.mktemp("saved")
  checkpoints = checkpoints_lib.Checkpoints(folder)
  for step in (1, 2, 3):
    checkpoints.save(step, state(step), {"records": step})
  checkpoints.close()
  return folder


@pytest.fixture
def folder(saved, tmp_path):
  shutil.copytree(saved, tmp_path / "checkpoints")
  return tmp_path / "checkpoints"


def resume(folder, like=None, then=lambda checkpoints: None):
  checkpoints = checkpoints_lib.Checkpoints(folder)

  def read(step):
    assert checkpoints.record(step) == {"records": step}
    return checkpoints.restore(step, like or state(0))

  try:
    found = checkpoints_lib.newest(checkpoints, read)
    then(checkpoints)
    return found
  finally:
    checkpoints.close()


def largest(folder, step):
  files = (folder / str(step) / "state").rglob("*")
  return max(files, key=lambda path: path.stat().st_size)


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(bytes(data))


def test_the_newest_is_restored_bit_for_bit_and_two_are_kept(folder):
  found = resume(folder)
  for got, want in zip(
    jax.tree.leaves(found), jax.tree.leaves(state(3)), strict=True
  ):
    assert np.array_equal(got, want) and got.dtype == want.dtype
  assert sorted(p.name for p in folder.iterdir()) == ["2", "3"]
  assert resume(folder.parent / "empty") is None


DAMAGE = {
  "record": lambda step: (step / "record" / "metadata").write_text("{"),
  "metadata": lambda step: (step / "state" / "_METADATA").unlink(),
  "manifest": lambda step: (step / "state" / "manifest.ocdbt").write_bytes(b""),
  "one bit": lambda step: flip(largest(step.parent, step.name)),
  "a folder": lambda step: shutil.rmtree(step / "state"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_an_older_one_restored(folder, kind, caplog):
  DAMAGE[kind](folder / "3")

  def go_on(checkpoints):
    checkpoints.save(3, state(3), {"records": 3})

  with caplog.at_level("WARNING"):
    found = resume(folder, then=go_on)
  assert int(found.step) == 2
  assert np.array_equal(
    found.params["student"]["w"], state(2).params["student"]["w"]
  )
  assert re.search(r"checkpoint 3 is damaged \(.+\), going back", caplog.text)
  assert (folder / "damaged-3").is_dir()
  assert int(resume(folder).step) == 3


def test_all_damaged_is_an_error_and_nothing_is_moved(folder):
  for step in ("2", "3"):
    DAMAGE["manifest"](folder / step)
  with pytest.raises(ValueError, match=r"none of the checkpoints \[2, 3\]"):
    resume(folder)
  assert (folder / "3").is_dir()


@pytest.mark.parametrize(
  ("like", "message"),
  [
    (state(0, size=8), r"w: checkpoint float32\[4096\], this run float32\[8\]"),
    (state(0, dtype=jnp.bfloat16), r"checkpoint float32.* this run bfloat16"),
    (state(0).replace(ema={"w": jnp.ones(2)}), "ema/w: checkpoint absent"),
  ],
)
def test_another_experiment_is_refused(folder, like, message):
  with pytest.raises(checkpoints_lib.MismatchError, match=message):
    resume(folder, like)
  assert (folder / "3").is_dir()


def test_a_step_older_than_the_newest_can_be_saved(folder):
  def save(checkpoints):
    checkpoints.save(1, state(1), {"records": 1})
    checkpoints.wait()
    assert checkpoints.record(1) == {"records": 1}

  resume(folder, then=save)


def test_a_full_disk_is_an_error_that_names_the_folder(tmp_path):
  # A limit on the size of files refuses writes as a full disk does.
  old = resource.getrlimit(resource.RLIMIT_FSIZE)
  ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  checkpoints = checkpoints_lib.Checkpoints(tmp_path / "full")
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    checkpoints.save(1, state(1, size=200_000), {})
    with pytest.raises(ValueError, match="no checkpoint can be written to"):
      checkpoints.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, ignored)
    checkpoints.close()


def test_keeping_none_is_refused(tmp_path):
  with pytest.raises(ValueError, match="checkpoint.keep is 0"):
    checkpoints_lib.Checkpoints(tmp_path, keep=0)


def test_checksum_sees_one_bit():
  array = np.zeros(1000, np.float32)
  before = checkpoints_lib.checksum({"a": array})
  assert checkpoints_lib.checksum({"a": array.copy()}) == before
  array.view(np.uint32)[777] = 1
  assert checkpoints_lib.checksum({"a": array}) != before
