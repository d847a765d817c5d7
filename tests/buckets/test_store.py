"""Keys and values of an S3 server, which fails now and then."""

import os
import re
import subprocess
import sys
import time

import pytest

import runs
from kd_jax.buckets import inputs, store

QUICK = {"max_retries": 3, "initial_delay": "10ms", "max_delay": "20ms"}


@pytest.fixture
def quick(monkeypatch):
  monkeypatch.setattr(store, "RETRIES", QUICK)
  monkeypatch.setattr(store, "FIRST_LOOK", QUICK)
  store.context.cache_clear()
  yield
  store.context.cache_clear()


@pytest.mark.parametrize("bucket", ["memory://bucket", "s3://bucket"])
def test_what_is_written_is_read(bucket, request):
  if bucket.startswith("s3"):
    request.getfixturevalue("s3")
  url = f"{bucket}/a b/c%20d"  # names as they are, with nothing to decode
  assert store.read(url, "x") is None and store.keys(url) == []
  first = store.write(url, "x", b"1")
  store.write(url, "y/z", b"\0" * 70_000)
  assert store.read(url, "x") == b"1"
  assert store.keys(url) == ["x", "y/z"]
  assert store.keys(f"{url}/y/") == ["z"]
  assert store.keys(f"{bucket}/a b") == ["c%20d/x", "c%20d/y/z"]
  assert store.write(url, "x", b"2") != first
  where = store.folder(url)
  late = store.result(where.write("x", b"3", if_equal=first), url)
  assert not late.generation and store.read(url, "x") == b"2"
  store.delete(url, ["x", "never there"])
  assert store.keys(f"{bucket}/a b") == ["c%20d/y/z"]


@pytest.mark.parametrize("url", ["http://b/x", "s3:///x", "file:///tmp"])
def test_other_urls_are_refused(url):
  with pytest.raises(ValueError, match="neither a folder nor a bucket; write"):
    store.folder(url)


def failing(times, fault):
  """Fails so often for every request, then no more."""
  left = {}

  def decide(method, path):
    key = method, path
    left[key] = left.get(key, times) - 1
    return fault if left[key] >= 0 else None

  return decide


@pytest.mark.parametrize("fault", [503, 500, 429, "reset"])
def test_what_fails_for_a_moment_is_tried_again(gate, quick, fault):
  url = f"s3://bucket/moment/{fault}"
  gate.fault = failing(2, fault)
  store.write(url, "x", b"value")
  assert store.read(url, "x") == b"value"
  assert store.keys(url) == ["x"]
  assert [m for m, _ in gate.seen].count("PUT") == 3


@pytest.mark.slow
def test_what_hangs_is_tried_again(gate):
  gate.fault = failing(1, "hang")
  code = (
    "from kd_jax.buckets import store; store.write('s3://bucket/h', 'x', b'')"
  )
  limit = {"TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "1"}
  start = time.monotonic()
  subprocess.run(
    [sys.executable, "-c", code],
    env={**os.environ, **limit},
    cwd=runs.ROOT,
    check=True,
    timeout=runs.PATIENCE,
  )
  assert store.read("s3://bucket/h", "x") == b""
  assert [m for m, _ in gate.seen].count("PUT") == 2
  assert time.monotonic() - start < 60


@pytest.mark.parametrize("fault", [503, "reset"])
def test_what_fails_for_good_ends_in_one_line(gate, quick, fault):
  gate.fault = failing(99, fault)
  with pytest.raises(store.BucketError, match="s3://bucket/x cannot be ") as e:
    store.write("s3://bucket/x", "y", b"")
  assert "\n" not in str(e.value) and f"AWS_ENDPOINT_URL={gate.url}" in str(
    e.value
  )
  assert re.search("All 3 retry attempts failed", str(e.value))
  assert len(gate.seen) == 4


def test_no_bucket_no_right_and_no_server(gate, quick, monkeypatch):
  with pytest.raises(ValueError, match="there is no bucket s3://absent; crea"):
    store.write("s3://absent/x", "y", b"")
  gate.fault = failing(99, 403)
  with pytest.raises(ValueError, match="may not be .* set AWS_ACCESS_KEY_ID"):
    store.write("s3://bucket/x", "y", b"")
  monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
  with pytest.raises(ValueError, match="cannot be reached at AWS_ENDPOINT_URL"):
    store.write("s3://bucket/x", "y", b"")


def test_credentials_come_from_where_there_are_some(monkeypatch, tmp_path):
  for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_CONFIG_FILE"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv("HOME", str(tmp_path))
  assert store._credentials() in ("anonymous", "default")  # Amazon's machines
  (tmp_path / ".aws").mkdir()
  (tmp_path / ".aws" / "credentials").touch()
  assert store._credentials() == "default"
  monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
  assert store._credentials() == "environment"


def test_files_are_fetched_once(gate, monkeypatch, tmp_path):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path))
  url = "s3://bucket/weights"
  store.write(url, "a", b"1" * 1000)
  for _ in range(2):
    folder = inputs.fetched(url, ["a", "b"])
    assert (folder / "a").read_bytes() == b"1" * 1000
    assert not (folder / "b").exists()
  replies = len(gate.seen)
  store.write(url, "a", b"2")
  assert inputs.fetched_file(f"{url}/a").read_bytes() == b"2"
  assert len(gate.seen) == replies + 2
  with pytest.raises(ValueError, match="there is no s3://bucket/weights/b"):
    inputs.fetched_file(f"{url}/b")
