"""Checkpoints in a bucket that are damaged, half written or foreign."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.buckets import spool, store
from kd_jax.train import checkpoints as checkpoints_lib
from kd_jax.train.bucket import checkpoints as bucket_checkpoints
from kd_jax.types import TrainState

URL = "memory://bucket/run"
PLACE = f"{URL}/checkpoints"
WORD = "process-00000-of-00001.json"


def state(step, size=4096, dtype=jnp.float32):
  weights = np.random.default_rng(step).standard_normal(size)
  return TrainState(
    step=jnp.asarray(step, jnp.int32),
    params={"student": {"w": jnp.asarray(weights, dtype), "b": jnp.ones(3)}},
    stats={"student": {}, "method": {}},
    opt=(jnp.full(3, 0.5, jnp.bfloat16), np.zeros((2, 0), bool)),
    ema={},
    rng=jax.random.key_data(jax.random.key(step)),
  )


@pytest.fixture
def folder():
  store.delete("memory://bucket", store.keys("memory://bucket"))
  with spool.mounted(URL) as root:
    with opened(root) as checkpoints:
      for step in (1, 2, 3):
        checkpoints.save(step, state(step), {"records": step})
    yield root


class opened:
  def __init__(self, root):
    self.found = bucket_checkpoints.opened(root / "checkpoints", keep=2)

  def __enter__(self):
    return self.found

  def __exit__(self, *_):
    self.found.close()


def resume(root, like=None, then=lambda checkpoints: None):
  with opened(root) as checkpoints:

    def read(step):
      assert checkpoints.record(step) == {"records": step}
      return checkpoints.restore(step, like or state(0))

    found = checkpoints_lib.newest(checkpoints, read)
    then(checkpoints)
    return found


def largest(step):
  where = f"{PLACE}/{step}"
  return where, max(
    store.keys(where), key=lambda key: len(store.read(where, key))
  )


def flip(step):
  where, key = f"{PLACE}/{step}", "arrays/params/student/w/c/0"
  data = bytearray(store.read(where, key))
  data[len(data) // 2] ^= 1
  store.write(where, key, bytes(data))


def delete(step, part):
  where = f"{PLACE}/{step}"
  store.delete(where, [key for key in store.keys(where) if part in key])


def equal(found, wanted):
  for got, want in zip(
    jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True
  ):
    assert np.array_equal(got, want) and got.dtype == want.dtype
  return True


def test_the_newest_is_restored_bit_for_bit_and_two_are_kept(folder):
  assert equal(resume(folder), state(3))
  assert {key.split("/")[0] for key in store.keys(PLACE)} == {"2", "3"}
  assert not [*folder.rglob("*")]
  with spool.mounted("memory://bucket/other") as other:
    assert resume(other) is None


DAMAGE = {
  "record": lambda step: store.write(f"{PLACE}/{step}", WORD, b"{"),
  "one bit": flip,
  "a file": lambda step: delete(step, "student/b"),
  "all arrays": lambda step: delete(step, "arrays"),
  "another array": lambda step: store.write(
    f"{PLACE}/{step}",
    "arrays/params/student/w/c/0",
    store.read(f"{PLACE}/2", "arrays/params/student/w/c/0"),
  ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_an_older_one_restored(folder, kind, caplog):
  DAMAGE[kind](3)

  def go_on(checkpoints):
    assert checkpoints.newest_record() == {"records": 2}
    checkpoints.save(3, state(3), {"records": 3})

  with caplog.at_level("WARNING"):
    found = resume(folder, then=go_on)
  assert equal(found, state(2))
  assert re.search(r"checkpoint 3 is damaged \(.+\), going back", caplog.text)
  assert f"moved it to {PLACE}/damaged-3" in caplog.text
  assert WORD in store.keys(f"{PLACE}/damaged-3")
  assert equal(resume(folder), state(3))


def test_all_damaged_is_an_error_and_nothing_is_moved(folder):
  for step in (2, 3):
    flip(step)
  with pytest.raises(
    ValueError, match=r"none of the checkpoints \[2, 3\] in m"
  ):
    resume(folder)
  with pytest.raises(
    ValueError, match=r"none of the checkpoints \[2, 3\] in m"
  ):
    bucket_checkpoints.read_newest(folder / "checkpoints")
  assert WORD in store.keys(f"{PLACE}/3")


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
  assert WORD in store.keys(f"{PLACE}/3")


def test_a_step_older_than_the_newest_can_be_saved(folder):
  def save(checkpoints):
    checkpoints.save(1, state(1), {"records": 1})
    checkpoints.wait()
    assert checkpoints.record(1) == {"records": 1}

  resume(folder, then=save)


def test_a_step_without_every_word_does_not_count_and_is_cleared(folder):
  for key in store.keys(f"{PLACE}/3"):
    if key != WORD:
      store.write(f"{PLACE}/4", key, store.read(f"{PLACE}/3", key))
  notes = store.read(f"{PLACE}/3", WORD)
  store.write(f"{PLACE}/4", "process-00001-of-00002.json", notes)
  assert (
    int(bucket_checkpoints.read_newest(folder / "checkpoints")["step"]) == 3
  )
  assert len(store.keys(f"{PLACE}/4")) > 5
  assert equal(resume(folder), state(3))
  assert store.keys(f"{PLACE}/4") == []


def test_metrics_are_there_before_a_step_counts(folder, monkeypatch):
  order, write = [], store.write

  def noted(url, key, value, **how):
    order.append(key)
    return write(url, key, value, **how)

  monkeypatch.setattr(store, "write", noted)
  (folder / "metrics.jsonl").write_text("{}\n")
  with opened(folder) as checkpoints:
    checkpoints.save(4, state(4), {"records": 4})
  assert order == ["metrics.jsonl", f"4/{WORD}"]


def test_a_bucket_that_refuses_is_one_line(folder, monkeypatch):
  def refuse(*_):
    raise store.BucketError("memory://bucket cannot be reached")

  with opened(folder) as checkpoints:
    monkeypatch.setattr(store, "write", refuse)
    checkpoints.save(4, state(4), {})
    with pytest.raises(
      ValueError, match=f"no checkpoint can be written to {PLACE}: memory://b"
    ):
      checkpoints.wait()
    monkeypatch.undo()
  assert equal(resume(folder), state(3))


def test_others_read_a_state_without_its_layout(folder):
  found = bucket_checkpoints.read_newest(folder / "checkpoints")
  assert found["ema"] == {} and found["step"] == 3
  assert np.array_equal(
    found["params"]["student"]["w"], state(3).params["student"]["w"]
  )
  bucket_checkpoints.discard(folder / "checkpoints")
  assert store.keys(PLACE) == []
  assert bucket_checkpoints.read_newest(folder / "checkpoints") is None
