"""Keys and values in a bucket: the one way to gs://, s3:// and memory://.

All of it is TensorStore, which the banks are written with: it retries what
failed for a moment (503, time-outs, broken connections) with growing pauses,
writes a value whole or not at all, and writes only if nobody else has.

An S3 server that is not Amazon's is named by AWS_ENDPOINT_URL. What lives in
memory:// ends with the process; tests use it.
"""

from __future__ import annotations

import functools
import os
import textwrap
from pathlib import Path
from typing import Any

import tensorstore as ts

SCHEMES = ("gs", "s3", "memory")
# 0.5 + 1 + 2 + ... seconds: two minutes, and two seconds for a first look.
RETRIES = {"max_retries": 10, "initial_delay": "500ms", "max_delay": "32s"}
FIRST_LOOK = {**RETRIES, "max_retries": 3}
# Seconds in which nothing comes until a request counts as failed.
_SILENT = {
  "TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS": "20",
  "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "30",
  "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "1",
}
_NO_BUCKET = (
  "NoSuchBucket",
  "bucket does not exist",
  "NOT_FOUND: Not Found",  # Google's; a missing value is no error
)
_UNREACHABLE = ("connect", "resolve host", "retry attempts failed", "imed out")
# Variables that name another source of credentials than files.
_PROVIDERS = (
  "AWS_PROFILE",
  "AWS_WEB_IDENTITY_TOKEN_FILE",
  "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
  "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_KEYS = {
  "gs": "run 'gcloud auth application-default login', or set "
  "GOOGLE_APPLICATION_CREDENTIALS",
  "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or fill "
  "~/.aws/credentials",
}


class BucketError(ValueError):
  """What a bucket refused, in one line."""


def is_url(place: str | Path) -> bool:
  """Whether a place is a URL, and no path of this machine."""
  return "://" in str(place)


def check(url: str) -> None:
  """Whether a URL can be read and written.

  Raises:
    ValueError: it has another scheme, or names no bucket.
  """
  scheme, _, rest = url.partition("://")
  if scheme not in SCHEMES or not rest.partition("/")[0]:
    raise ValueError(
      f"{url!r} is neither a folder nor a bucket; write a path, "
      "gs://BUCKET/PATH or s3://BUCKET/PATH"
    )


def join(url: str, *parts: str) -> str:
  """A URL below another."""
  return "/".join((url.rstrip("/"), *parts))


def spec(url: str) -> Any:
  """What TensorStore calls the folder `url`.

  Raises:
    ValueError: see `check`.
  """
  check(url)
  scheme, _, rest = (url.rstrip("/") + "/").partition("://")
  if scheme == "memory":
    return {"driver": "memory", "path": rest}
  bucket, _, path = rest.partition("/")
  place = {"bucket": bucket, "path": path}
  if scheme == "gs":
    return {"driver": "gcs", **place}
  own = {"driver": "s3", **place, "use_conditional_write": True}
  region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
  endpoint = os.environ.get("AWS_ENDPOINT_URL")
  if endpoint:
    own |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
  elif region:
    own["aws_region"] = region
  return own


@functools.cache
def context(scheme: str, *, first_look: bool) -> ts.Context:
  """What all requests of a scheme share; memory:// belongs to its own.

  Args:
    scheme: of the URL; '' for files.
    first_look: give up early, before anything was done.
  """
  for name, value in _SILENT.items():
    os.environ.setdefault(name, value)
  retries = FIRST_LOOK if first_look else RETRIES
  found: dict[str, Any] = {
    "s3_request_retries": retries,
    "gcs_request_retries": retries,
  }
  if scheme == "s3":
    found["aws_credentials"] = {"type": _credentials()}
  return ts.Context(found)


def _credentials() -> str:
  """Where those for S3 come from.

  The default chain complains at length about all that is not there, and waits
  for machines that only Amazon has.
  """
  if os.environ.get("AWS_ACCESS_KEY_ID"):
    return "environment"
  files = (
    os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
  )
  vendor = Path("/sys/class/dmi/id/sys_vendor")
  amazon = vendor.exists() and "Amazon" in vendor.read_text(errors="replace")
  named = any(name in os.environ for name in _PROVIDERS)
  there = any(Path(file).expanduser().exists() for file in files)
  return "default" if named or there or amazon else "anonymous"


def folder(url: str, *, first_look: bool = False) -> Any:
  """Keys and values below `url`.

  Raises:
    ValueError: see `check`; or it cannot be opened.
  """
  scheme = url.partition("://")[0]
  quick = first_look and scheme != "memory"
  shared = context(scheme, first_look=quick)
  return result(ts.KvStore.open(spec(url), context=shared), url)


def result(job: Any, url: str) -> Any:
  """What a TensorStore job yields.

  Raises:
    BucketError: the bucket refuses, or is out of reach.
  """
  try:
    return job.result()
  except Exception as error:  # One for each of their codes.
    said = refusal(error, url) or f"{url}: the bucket refuses ({_first(error)})"
    raise BucketError(said) from error


def read(url: str, key: str) -> bytes | None:
  """A value; None where there is none."""
  found = result(folder(url).read(key), url)
  return bytes(found.value) if found.state == "value" else None


def write(
  url: str, key: str, value: bytes, *, first_look: bool = False
) -> bytes:
  """Writes a value, whole or not at all; its generation."""
  where = folder(url, first_look=first_look)
  return bytes(result(where.write(key, value), url).generation)


def keys(url: str) -> list[str]:
  """All keys below `url`, sorted."""
  found = result(folder(url).list(), url)
  return sorted(key.decode(errors="replace") for key in found)


def delete(url: str, found: list[str]) -> None:
  """Deletes keys; those that are not there are no error."""
  where = folder(url)
  for job in [where.write(key, None) for key in found]:
    result(job, url)


def _first(error: Exception) -> str:
  said = str(error).split(" [")[0]
  return textwrap.shorten(said, 160, placeholder=" ...")


def refusal(error: Exception, url: str) -> str:
  """Why a bucket cannot be used, and what to do; '' for other errors."""
  said, scheme, first = str(error), url.partition("://")[0], _first(error)
  if any(text in said for text in _NO_BUCKET):
    bucket = "/".join(url.split("/")[:3])
    return f"there is no bucket {bucket}; create it, or correct the URL {url}"
  if any(x in said for x in ("PERMISSION_DENIED", "UNAUTHENTICATED", "='403'")):
    return (
      f"{url} may not be read or written ({first}): "
      f"{_KEYS.get(scheme, 'ask its owner')}, of an account that may"
    )
  if any(text in said for text in _UNREACHABLE):
    server = os.environ.get("AWS_ENDPOINT_URL", "") if scheme == "s3" else ""
    asked = f" at AWS_ENDPOINT_URL={server}" if server else ""
    return (
      f"{url} cannot be reached{asked} ({first}). Check the network and the "
      "URL, then run the same command again."
    )
  return ""
