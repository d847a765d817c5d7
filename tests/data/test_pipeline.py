import contextlib
import json
import multiprocessing
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from kd_jax import interfaces
from kd_jax.data import pipeline
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.reading import Reading
from kd_jax.data.sources import digits, folder, synthetic

SOURCE = digits.Source(split="train[:100]")
PREPROCESS = Preprocess(image_size=12, crop_pct=1.0, augment="shift", shift=2)
CROPS = Preprocess(image_size=8, num_crops=3)


def take(count, source=SOURCE, preprocess=PREPROCESS, **options):
  options = {"batch_size": 24, "seed": 5, **options}
  with pipeline.train_batches(source, preprocess, **options) as batches:
    return [next(batches) for _ in range(count)]


def assert_equal(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture(scope="module")
def stream():
  return take(13)


def test_shapes_and_dtypes(stream):
  batch = stream[0]
  assert (batch.image.shape, batch.image.dtype) == ((24, 12, 12, 3), np.uint8)
  assert (batch.label.shape, batch.label.dtype) == ((24,), np.int32)
  assert (batch.mask.tolist(), batch.mask.dtype) == ([1.0] * 24, np.float32)
  assert batch.teacher == {}


def test_every_epoch_is_a_new_permutation():
  plain = Preprocess(image_size=8, crop_pct=1.0, augment="none")
  batches = take(12, preprocess=plain, batch_size=25)
  images = np.concatenate([batch.image for batch in batches])
  labels = np.concatenate([batch.label for batch in batches])
  truth = {SOURCE[i]["image"].tobytes(): SOURCE[i]["label"] for i in range(100)}
  epochs = [
    [image.tobytes() for image in e] for e in images.reshape(3, 100, -1)
  ]
  assert [set(epoch) for epoch in epochs] == [set(truth)] * 3
  assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
  assert [truth[i] for epoch in epochs for i in epoch] == labels.tolist()
  assert epochs[0] != [SOURCE[i]["image"].tobytes() for i in range(100)]


def test_augmentation_is_new_in_every_epoch():
  one = digits.Source(split="train[:1]")
  batches = take(30, source=one, batch_size=1)
  assert len({batch.image.tobytes() for batch in batches}) > 10


def test_seed_decides(stream):
  assert_equal(take(2), stream[:2])
  assert (take(1, seed=6)[0].image != stream[0].image).any()


# 100 records make 4.17 steps: 4 and 8 cross the end of an epoch.
def test_resuming_is_skipping_at_every_step(stream):
  for start_step in range(13):
    found = take(13 - start_step, start_step=start_step)
    assert_equal(found, stream[start_step:])


def test_views_follow_from_seed_epoch_and_record(stream):
  def views(batches):
    images = np.concatenate([batch.image for batch in batches])[:200]
    return [image.tobytes() for image in images]

  # Other batches, other threads: the same views in the same order.
  assert views(take(25, batch_size=8)) == views(stream)
  # Another order: what a record looks like in an epoch stays.
  tail = take(25, batch_size=8, seed=6)
  assert views(tail) != views(stream)
  first, second = views(stream)[:100], views(stream)[100:]
  assert len(set(first) & set(second)) < 25  # 25 shifts are possible


def test_record_ids_decide_not_positions():
  class Renumbered(Lazy):
    def __getitem__(self, index):
      return {**SOURCE[index], "id": index + 50}

  crop = Preprocess(image_size=8, augment="crop")
  plain = take(1, preprocess=crop, batch_size=100)[0]
  moved = take(1, source=Renumbered(100), preprocess=crop, batch_size=100)[0]
  assert_equal(moved.label, plain.label)
  assert (moved.image != plain.image).any()


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_resume_at_every_position_of_an_epoch(num_workers):
  # 3 steps of 4 records, and into the next epoch.
  options = {"source": digits.Source(split="train[:12]"), "batch_size": 4}
  whole = take(6, **options)
  for start_step in range(4):
    reading = Reading(num_workers)
    found = take(2, **options, start_step=start_step, reading=reading)
    assert_equal(found, whole[start_step : start_step + 2])


def test_another_number_of_hosts_goes_on_with_the_same_records(stream):
  # Two hosts take 5 steps, then one goes on.
  rows = [row.tobytes() for row in stream[5].image]
  for hosts in (1, 2, 3, 4):
    shards = [
      take(1, start_step=5, process_index=i, process_count=hosts)[0].image
      for i in range(hosts)
    ]
    assert [row.tobytes() for row in np.concatenate(shards)] == rows


def test_four_hosts_see_every_record_once():
  plain = Preprocess(image_size=8, crop_pct=1.0, augment="none")
  images = [
    batch.image
    for i in range(4)
    for batch in take(
      5, preprocess=plain, batch_size=20, process_index=i, process_count=4
    )
  ]
  found = sorted(image.tobytes() for image in np.concatenate(images))
  assert found == sorted(SOURCE[i]["image"].tobytes() for i in range(100))


def test_crops_of_an_image_are_neighbours():
  crop = Preprocess(image_size=8, num_crops=3)
  batches = take(4, preprocess=crop, batch_size=30)
  labels = np.concatenate([b.label for b in batches]).reshape(-1, 3)
  assert (labels == labels[:, :1]).all()
  single = take(4, preprocess=Preprocess(image_size=8), batch_size=10)
  assert labels[:, 0].tolist() == [x for b in single for x in b.label]
  for batch, one in zip(batches, single, strict=True):
    np.testing.assert_array_equal(batch.image[::3], one.image)
    assert (batch.image[::3] != batch.image[1::3]).any()


def test_canvas_batches_hold_images_and_boxes():
  view = Preprocess(
    image_size=8, canvas=12, num_crops=2, train_interpolation="bilinear"
  )
  batch = take(1, preprocess=view, batch_size=8)[0]
  shapes = jax.tree.map(np.shape, batch)
  assert shapes.image == (4, 12, 12, 3)
  assert shapes.geometry == (4, 2, 7)
  assert shapes.label == shapes.mask == (4,)


class Lazy(interfaces.DataSource):
  """A source of any length that holds nothing."""

  num_classes = 0
  fingerprint = "lazy"

  def __init__(self, length):
    self.length = length

  def __len__(self):
    return self.length

  def __getitem__(self, index):
    image = np.full((8, 8, 3), index % 251, np.uint8)
    return {"image": image, "label": -1, "id": index}


def test_memory_does_not_grow_with_the_number_of_records():
  def peak(length):
    tracemalloc.start()
    reading = Reading(num_threads=0)
    take(20, source=Lazy(length), batch_size=32, reading=reading)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found

  peak(1000)  # imports
  small, large = peak(1000), peak(1_000_000)
  assert small > 20_000
  assert large < 1.2 * small


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_same_stream(stream, count):
  parts = [
    take(4, start_step=3, process_index=i, process_count=count)
    for i in range(count)
  ]
  for step, shards in enumerate(zip(*parts, strict=True)):
    assert {len(shard.label) for shard in shards} == {24 // count}
    union = jax.tree.map(
      lambda *rows: np.concatenate(rows),
      *shards,
    )
    assert_equal(union, stream[3 + step])


def test_threads_change_nothing(stream):
  for threads, ahead in ((0, 0), (2, 1)):
    reading = Reading(num_threads=threads, prefetch=ahead)
    assert_equal(take(3, reading=reading), stream[:3])


def test_workers_change_nothing(stream):
  found = take(6, reading=Reading(2), start_step=2)
  assert_equal(found, stream[2:8])
  assert type(found[0].image) is np.ndarray
  assert multiprocessing.active_children() == []


@contextlib.contextmanager
def no_new_threads():
  before = set(threading.enumerate())
  yield lambda: set(threading.enumerate()) - before
  # Grain tells its threads to end, without waiting for them.
  for thread in set(threading.enumerate()) - before:
    thread.join(10)
  assert set(threading.enumerate()) <= before


def test_nothing_is_left_running():
  with no_new_threads() as new:
    batches = pipeline.train_batches(SOURCE, PREPROCESS, batch_size=8, seed=0)
    with contextlib.closing(batches):
      next(batches)
      assert new()
  batches.close()
  with pytest.raises(ValueError, match="these batches are closed"):
    next(batches)


def test_dropped_batches_close_themselves():
  with no_new_threads() as new:
    batches = pipeline.train_batches(SOURCE, PREPROCESS, batch_size=8, seed=0)
    next(batches)
    assert new()
    del batches


def test_unclosed_batches_end_quietly_with_the_interpreter():
  code = """
from kd_jax.data import pipeline, preprocess
from kd_jax.data.sources import digits
view = preprocess.Preprocess(image_size=8, augment='none')
batches = pipeline.train_batches(digits.Source(), view, batch_size=8, seed=0)
print(next(batches).image.shape)
"""
  run = subprocess.run(
    [sys.executable, "-W", "error", "-c", code],
    capture_output=True,
    text=True,
    cwd=Path(__file__).parents[2],
  )
  assert (run.stdout, run.stderr) == ("(8, 8, 8, 3)\n", "")


@pytest.mark.parametrize("process_count", [1, 2])
def test_eval_is_one_padded_pass(process_count):
  source = digits.Source(split="test[:50]")
  shards = []
  for index in range(process_count):
    with pipeline.eval_batches(
      source,
      PREPROCESS,
      batch_size=16,
      process_index=index,
      process_count=process_count,
    ) as batches:
      shards.append(list(batches))
  assert [len(shard) for shard in shards] == [4] * process_count
  rows = [
    np.stack([[getattr(b, name) for b in shard] for shard in shards], axis=1)
    for name in ("image", "label", "mask")
  ]
  image, label, mask = (r.reshape(64, *r.shape[3:]) for r in rows)
  assert mask.tolist() == [1.0] * 50 + [0.0] * 14
  assert label.tolist() == [r["label"] for r in source] + [-1] * 14
  np.testing.assert_array_equal(
    image[:50], [PREPROCESS.eval(source[i]) for i in range(50)]
  )
  assert not image[50:].any()
  assert image[:50].any()


@pytest.mark.parametrize(
  ("limit", "steps", "rows"), [(7, 1, 7), (16, 1, 16), (17, 2, 17), (99, 4, 50)]
)
def test_eval_limit(limit, steps, rows):
  source = digits.Source(split="test[:50]")
  with pipeline.eval_batches(
    source, PREPROCESS, batch_size=16, limit=limit
  ) as batches:
    masks = np.array([batch.mask for batch in batches])
  assert masks.shape == (steps, 16)
  assert masks.sum() == rows


@pytest.fixture
def photos(tmp_path):
  for name in ("china", "flower"):
    photo = Image.fromarray(load_sample_image(f"{name}.jpg")[::4, ::4].copy())
    (tmp_path / name).mkdir()
    for i in range(4):
      photo.save(tmp_path / name / f"{i}.jpg", quality=80 + i)
  return tmp_path


def test_photos_from_disk(photos):
  source = folder.Source(str(photos))
  preprocess = Preprocess(image_size=16, color_jitter=(0.1, 0.1, 0.1))
  batch = take(1, source, preprocess, batch_size=8)[0]
  assert sorted(batch.label.tolist()) == [0] * 4 + [1] * 4
  assert len({image.tobytes() for image in batch.image}) == 8


def test_broken_photo_is_named(photos):
  file = photos / "flower" / "2.jpg"
  file.write_bytes(file.read_bytes()[:-100])
  source = folder.Source(str(photos))
  with pytest.raises(ValueError, match=rf"{file}: corrupt, truncated"):
    take(1, source, batch_size=8)
  with (
    pytest.raises(ValueError, match=rf"{file}: corrupt, truncated"),
    pipeline.eval_batches(source, PREPROCESS, batch_size=8) as batches,
  ):
    next(batches)


def test_position():
  where = pipeline.position(13, 24, source=SOURCE, seed=5)
  assert json.loads(json.dumps(where)) == {
    "records": 312,
    "epoch": 3,
    "index": 12,
    "source": SOURCE.fingerprint,
    "seed": 5,
  }


@pytest.mark.parametrize(
  ("options", "match"),
  [
    ({"batch_size": 101}, "batch_size=101 exceeds the source's 100 records"),
    (
      {"batch_size": 303, "preprocess": CROPS},
      r"batch_size=303 \(101 images, 3 crops of each\) exceeds",
    ),
    ({"preprocess": CROPS, "batch_size": 8}, "gives num_crops=3; make it a"),
    ({"process_count": 5}, "batch_size=24 does not split over 5 processes"),
    ({"batch_size": 0}, "batch_size=0 does not split"),
    ({"process_index": 2, "process_count": 2}, "process_index=2 of"),
    ({"process_index": -1}, "process_index=-1 of"),
    ({"start_step": -1}, "start_step=-1; it must be at least 0"),
    ({"seed": -1}, "seed=-1; it must be at least 0"),
  ],
)
def test_train_errors(options, match):
  with pytest.raises(ValueError, match=match):
    take(0, **options)


@pytest.mark.parametrize("name", ["num_workers", "num_threads", "prefetch"])
def test_reading_errors(name):
  with pytest.raises(ValueError, match=f"{name}=-1; it must be at least 0"):
    Reading(**{name: -1})


@pytest.mark.parametrize(
  ("options", "match"),
  [
    ({"batch_size": 3, "process_count": 2}, "does not split over 2"),
    ({"batch_size": 4, "limit": 0}, "limit=0; it must be at least 1"),
  ],
)
def test_eval_errors(options, match):
  with pytest.raises(ValueError, match=match):
    pipeline.eval_batches(SOURCE, PREPROCESS, **options)


def test_synthetic_source_runs():
  source = synthetic.Source(size=20, length=8)
  batch = take(1, source, Preprocess(image_size=12), batch_size=8)[0]
  assert sorted(batch.label.tolist()) == list(range(8))
