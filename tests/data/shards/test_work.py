import threading
from concurrent import futures

import pytest

from kd_jax.data.shards import work


def test_threads_share_what_one_loads():
  loaded, gate = [], threading.Event()

  def load(block):
    loaded.append(block)
    gate.wait(10)
    return [block]

  held = work.Held(load, 4)
  with futures.ThreadPoolExecutor(6) as pool:
    taken = [pool.submit(held.take, 3, 10) for _ in range(6)]
    gate.set()
    results = [future.result() for future in taken]
  assert loaded == [3] and all(result is results[0] for result in results)


def test_blocks_leave_when_used_up_or_crowded_out():
  loaded = []
  held = work.Held(lambda block: loaded.append(block) or block, 2)
  assert [held.take(0, 3) for _ in range(3)] == [0, 0, 0]
  assert len(held) == 0 and loaded == [0]
  for block in (1, 2, 1, 3, 1, 2):  # 2 was used last before 3 came
    held.take(block, 9)
  assert loaded == [0, 1, 2, 3, 2] and len(held) == 2


def test_a_failure_is_told_and_tried_again():
  tries = []

  def load(block):
    tries.append(block)
    if len(tries) == 1:
      raise ValueError("lost")
    return block

  held = work.Held(load, 2)
  with pytest.raises(ValueError, match="lost"):
    held.take(5, 2)
  assert held.take(5, 2) == 5 and held.take(5, 2) == 5 and tries == [5, 5]


def test_each_keeps_order_and_stops_at_an_error():
  assert work.each(lambda x: x * x, range(50), "") == [x * x for x in range(50)]

  def fail(item):
    raise ValueError(f"item {item}")

  with pytest.raises(ValueError, match="item 0"):
    work.each(fail, range(3), "")
  assert work.each(fail, [], "") == []
