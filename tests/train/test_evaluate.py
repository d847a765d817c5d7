from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.train import evaluate


def test_a_fold_is_the_sum_over_the_stream():
  batches = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
  step = jax.jit(
    lambda total, x: {"sum": total["sum"] + x, "n": 1 + total["n"]}
  )
  zero = {"sum": jnp.zeros(4), "n": jnp.zeros((), jnp.int32)}
  found = evaluate.fold(step, zero, map(jnp.asarray, batches))
  wanted = np.zeros(4, np.float32)
  for batch in batches:
    wanted += batch
  np.testing.assert_array_equal(found["sum"], wanted)
  assert isinstance(found["sum"], np.ndarray) and found["n"] == 5
  assert evaluate.fold(step, None, iter(())) is None


def test_a_fold_asks_for_a_batch_while_one_is_under_way():
  """The total of batch i is waited for after batch i + 1 has been sent."""
  order = []

  class Total:
    def __init__(self, number):
      self.number = number

    def block_until_ready(self):
      order.append(f"done {self.number}")

    def __array__(self, dtype=None, copy=None):
      return np.array(self.number)

  def stream():
    for number in range(1, 4):
      order.append(f"read {number}")
      yield number

  def step(total, number):
    order.append(f"send {number}")
    return Total(number)

  assert evaluate.fold(step, None, stream()) == 3
  assert order == [
    *("read 1", "send 1"),
    *("read 2", "send 2", "done 1"),
    *("read 3", "send 3", "done 2"),
  ]


def test_sums_of_trees():
  found = evaluate.added({"a": jnp.ones(2)}, {"a": jnp.arange(2.0)})
  np.testing.assert_array_equal(found["a"], [1, 2])
