"""Tars and tables in a bucket of a real S3 server: as on a disk."""

import io
import os
import pickle
from concurrent import futures

import datasets
import fsspec
import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from kd_jax.data import pipeline
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.reading import Reading
from kd_jax.data.shards import arrow, files, tar
from kd_jax.data.sources import huggingface, webdataset


def png(number):
  pixels = np.random.default_rng(number).integers(0, 255, (9, 9, 3), np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
  folder = tmp_path_factory.mktemp("local")
  with wds.ShardWriter(f"{folder}/a-%03d.tar", maxcount=6, verbose=0) as writer:
    for number in range(16):
      writer.write({"__key__": f"{number}", "png": png(number), "cls": number})
  images = [{"bytes": png(i), "path": None} for i in range(16)]
  table = datasets.Dataset.from_dict(
    {"image": images, "label": list(range(16))},
    datasets.Features(
      image=datasets.Image(), label=datasets.ClassLabel(num_classes=16)
    ),
  )
  datasets.disable_progress_bars()
  table.to_parquet(folder / "b/train-00000-of-00001.parquet", batch_size=5)
  datasets.DatasetDict(train=table).save_to_disk(folder / "c")
  return folder


@pytest.fixture
def remote(local, bucket):
  system = fsspec.filesystem("s3")
  for folder, _, names in os.walk(local):
    below = os.path.relpath(folder, local)
    for name in names:
      key = os.path.normpath(f"{below}/{name}")
      system.put_file(f"{folder}/{name}", f"{bucket}/x/{key}")
  return f"{bucket}/x"


def sources(place, **fields):
  return [
    webdataset.Source(f"{place}/a-{{000..002}}.tar", **fields),
    huggingface.Source(f"{place}/b", split="train", **fields),
    huggingface.Source(f"{place}/c", split="train", **fields),
  ]


@pytest.mark.parametrize("mixed", [0, 2])
def test_as_on_a_disk(local, remote, mixed, monkeypatch):
  monkeypatch.setattr(tar, "_AHEAD", 1000 if mixed else 10**6)
  monkeypatch.setattr(arrow, "_AHEAD", 100 if mixed else 10**6)
  pairs = zip(
    sources(local), sources(remote, shuffle_blocks=mixed), strict=True
  )
  for here, there in pairs:
    assert there.fingerprint == here.fingerprint
    assert there.all_labels() == here.all_labels() == list(range(16))
    again = pickle.loads(pickle.dumps(there))
    with futures.ThreadPoolExecutor(4) as pool:
      found = list(pool.map(again.__getitem__, range(16)))
    assert found == [dict(record) for record in here]
    assert there.describe(3).startswith(remote)


def test_ways_to_name_them(remote):
  for urls in (
    f"{remote}/*.tar",
    f"{remote}/",
    [f"{remote}/a-{{000..002}}.tar"],
  ):
    assert len(webdataset.Source(urls)) == 16
  with pytest.raises(
    ValueError, match=r"1 of 4 files .*\['s3://.*/a-003.tar'\]"
  ):
    webdataset.Source(f"{remote}/a-{{000..003}}.tar")
  for path in ("b/*.parquet", "b/train-00000-of-00001.parquet", "c/train"):
    assert len(huggingface.Source(f"{remote}/{path}")) == 16
  for place in ("nothing", "b/*.tar"):
    with pytest.raises(
      ValueError, match="files are not there|there is no file"
    ):
      webdataset.Source(f"{remote}/{place}")
  with pytest.raises(ValueError, match="1 of 1 files are not there"):
    huggingface.Source("s3://no-such-bucket/x.parquet")


@pytest.mark.slow
def test_worker_processes_read_the_same(remote):
  views = Preprocess(8, augment="shift", shift=1, crop_pct=1.0)
  source = sources(remote, shuffle_blocks=2)[0]

  def batches(reading):
    with pipeline.train_batches(
      source, views, batch_size=4, seed=0, reading=reading
    ) as stream:
      return np.stack([next(stream).image for _ in range(4)])

  alone = batches(Reading(num_threads=0))
  np.testing.assert_array_equal(alone, batches(Reading(num_workers=1)))


def test_a_shard_that_is_replaced_is_read_again(remote):
  first = webdataset.Source(f"{remote}/a-002.tar")
  system = fsspec.filesystem("s3")
  system.copy(f"{remote}/a-000.tar", f"{remote}/a-002.tar")
  again = webdataset.Source(f"{remote}/a-002.tar")
  assert (len(first), len(again)) == (4, 6)
  system.rm(f"{remote}/a-002.tar")
  with pytest.raises(ValueError, match="a-002.tar: gone since it was listed"):
    again[0]


def test_a_server_that_fails_for_a_while(remote, monkeypatch):
  source = webdataset.Source(f"{remote}/a-000.tar")
  monkeypatch.setattr(files.time, "sleep", lambda _: None)
  system, failures = files.filesystem(remote), [OSError("503 Slow Down")] * 3
  fetch = system.cat_file

  def failing(*args, **kwargs):
    if failures:
      raise failures.pop()
    return fetch(*args, **kwargs)

  monkeypatch.setattr(system, "cat_file", failing)
  assert source[2]["image"] == png(2) and not failures
  failures += [OSError("503 Slow Down")] * 9
  with pytest.raises(ValueError, match="a-000.tar: cannot be read: .*503 Slow"):
    source[2]
