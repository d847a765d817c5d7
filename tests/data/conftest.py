"""A real S3 server on this machine."""

import logging
import uuid

import pytest


@pytest.fixture(scope="session")
def s3_server():
  """Its address; it answers from a thread of this process."""
  from moto.server import ThreadedMotoServer

  logging.getLogger("werkzeug").setLevel(logging.ERROR)
  server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
  server.start()
  host, port = server.get_host_and_port()
  yield f"http://{host}:{port}"
  server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch):
  """Address of an empty bucket, which this and other processes can read."""
  import fsspec

  settings = {"ENDPOINT_URL": s3_server, "ACCESS_KEY_ID": "a"}
  settings |= {"SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}
  for name, value in settings.items():
    monkeypatch.setenv(f"AWS_{name}", value)
  address = f"s3://bucket-{uuid.uuid4().hex}"
  fsspec.filesystem("s3").mkdir(address)
  return address
