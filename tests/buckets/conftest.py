import pytest

import s3_case


@pytest.fixture(scope="module")
def server():
  """The URL of a real S3 server."""
  with s3_case.server() as url:
    yield url


@pytest.fixture
def s3(server):
  """This process talks to the server."""
  with s3_case.environment(server):
    yield server


@pytest.fixture
def gate(server):
  """This process talks to the server through a gate."""
  found = s3_case.Gate(server)
  try:
    with s3_case.environment(found.url):
      yield found
  finally:
    found.close()
