"""One run for all that looks at what it leaves."""

import pytest
from door_case import distil, known_student, photographs

import runs


# Not for the session: tests that count a family's members may come after these.
@pytest.fixture(scope="module", autouse=True)
def student():
  with known_student():
    yield


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
  return runs.save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def images(tmp_path_factory):
  return photographs(tmp_path_factory.mktemp("photos") / "all")


@pytest.fixture(scope="session")
def finished(images, teacher, tmp_path_factory):
  """(folder, standard error) of a finished run."""
  out = tmp_path_factory.mktemp("runs") / "mine"
  with known_student():
    status, said = distil(images, teacher, out)
  assert status == 0, said
  return out, said
