import collections
import pickle

import numpy as np
import pytest

from kd_jax.data import pipeline
from kd_jax.data.order import FEW, BlockOrder, FewOrder
from kd_jax.interfaces import DataSource

# Published runs depend on it.
FEW_PINNED = {
  7: ([0, 2, 1, 5, 4, 3, 6], [5, 3, 2, 4, 1, 0, 6]),
  100: (
    [43, 78, 71, 6, 13, 60, 31, 59, 26, 1],
    [47, 91, 50, 9, 31, 27, 59, 30, 86, 7],
  ),
}
PINNED = [6, 5, 12, 7, 3, 4, 8, 0, 9, 10, 1, 2, 11, 13]


class Blocks(DataSource):
  """Records of no contents, in blocks of 1 to 19."""

  def __init__(self, sizes, mixed):
    self._sizes, self.shuffle_blocks = sizes, mixed

  def blocks(self):
    return self._sizes

  def __len__(self):
    return sum(self._sizes)


@pytest.mark.parametrize(("length", "seed"), [(7, 0), (100, 3), (FEW, 1)])
def test_few_records_are_permuted_anew_in_every_epoch(length, seed):
  ours = pipeline.shuffled(Blocks([length], 0), seed, 1).repeat(None)
  order = pickle.loads(pickle.dumps(FewOrder(length, seed)))
  places = [0, 1, length - 1, length, 2 * length + 3, 25 * length + 1]
  assert [ours[p] for p in places] == [order(p) for p in places]
  first, second = epoch(order, length), epoch(order, length, 1)
  assert sorted(first) == sorted(second) == list(range(length))
  assert first != second
  assert epoch(FewOrder(length, seed + 1), length) != first
  if length in FEW_PINNED:
    begin = slice(0, 10)
    assert (first[begin], second[begin]) == FEW_PINNED[length]


def cases():
  rng = np.random.default_rng(0)
  for seed in range(60):
    sizes = rng.integers(1, 20, rng.integers(1, 30)).tolist()
    lanes = int(rng.integers(1, len(sizes) + 1))
    yield sizes, lanes, lanes + int(rng.integers(0, 20)), seed


def epoch(order, count, number=0):
  return [order(p) for p in range(number * count, (number + 1) * count)]


def test_every_epoch_has_every_record_once():
  for sizes, lanes, images, seed in cases():
    order = BlockOrder(sizes, lanes=lanes, images=images, seed=seed)
    for number in (0, 1, 5):
      found = epoch(order, sum(sizes), number)
      assert sorted(found) == list(range(sum(sizes)))


def test_epochs_and_seeds_differ_and_nothing_is_remembered():
  sizes = [10] * 40
  orders = [BlockOrder(sizes, lanes=4, images=20, seed=s) for s in (0, 0, 1)]
  first = epoch(orders[0], 400)
  assert first != epoch(orders[0], 400, 1) and first != epoch(orders[2], 400)
  backwards = [orders[1](p) for p in reversed(range(800))]
  assert backwards[::-1] == first + epoch(orders[0], 400, 1)
  assert pickle.loads(pickle.dumps(orders[0]))(777) == orders[1](777)


def test_the_order_of_today():
  order = BlockOrder([3, 4, 2, 5], lanes=2, images=4, seed=7)
  assert epoch(order, 14) == PINNED


def test_few_blocks_are_open_at_a_time():
  sizes, lanes, images = [25] * 64, 8, 32
  order = BlockOrder(sizes, lanes=lanes, images=images, seed=3)
  blocks = np.array(epoch(order, 1600)) // 25
  first = {block: np.flatnonzero(blocks == block).min() for block in range(64)}
  last = {block: np.flatnonzero(blocks == block).max() for block in range(64)}
  at_once = [
    sum(first[b] <= place <= last[b] for b in range(64))
    for place in range(1600)
  ]
  # Lanes are cut inside blocks: those at a cut are opened twice.
  whole = [b for b in range(64) if last[b] - first[b] < 25 * images / lanes * 2]
  assert len(whole) >= 64 - lanes and np.mean(at_once) < 2.5 * lanes
  for start in range(0, 1600, images):
    in_batch = collections.Counter(blocks[start : start + images].tolist())
    assert (
      len(in_batch) >= lanes and max(in_batch.values()) <= images // lanes * 2
    )


def test_records_are_mixed():
  order = BlockOrder([50] * 100, lanes=20, images=100, seed=0)
  found = np.array(epoch(order, 5000))
  assert abs(np.corrcoef(found, np.arange(5000))[0, 1]) < 0.1
  inside = found[found // 50 == 7] % 50
  assert abs(np.corrcoef(inside, np.arange(50))[0, 1]) < 0.4


@pytest.mark.parametrize("count", [2, 4])
def test_processes_read_blocks_of_their_own(count):
  sizes, images = [16] * 64, 32
  order = BlockOrder(sizes, lanes=8, images=images, seed=1)
  blocks = (
    np.array(epoch(order, 1024)).reshape(-1, count, images // count) // 16
  )
  read = [set(blocks[:, process].ravel().tolist()) for process in range(count)]
  assert sum(map(len, read)) <= 64 + count


def test_in_the_pipeline():
  sizes = [5, 1, 7, 7, 2, 9]
  source = Blocks(sizes, 3)
  dataset = pipeline.shuffled(source, 4, 6).repeat(None)
  order = BlockOrder(sizes, lanes=3, images=6, seed=4)
  assert [dataset[i] for i in range(93)] == [order(i) for i in range(93)]
  many = pipeline.shuffled(Blocks(sizes, 50), 4, 6)
  assert sorted(many[i] for i in range(31)) == list(range(31))
  plain = pipeline.shuffled(Blocks(sizes, 0), 4, 6)
  assert sorted(plain[i] for i in range(31)) == list(range(31))
  with pytest.raises(ValueError, match="shuffle_blocks=6 exceeds the 5 images"):
    pipeline.shuffled(Blocks(sizes, 6), 4, 5)
