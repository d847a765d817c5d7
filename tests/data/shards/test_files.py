import io

import pytest

from kd_jax.data.shards import files
from kd_jax.data.shards.files import File


@pytest.fixture
def ten(tmp_path):
  path = tmp_path / "ten"
  path.write_bytes(b"0123456789")
  return File(str(path), 10, "")


@pytest.mark.parametrize("ahead", [0, 4, 100])
def test_a_reader_is_a_file(ten, ahead):
  reader, plain = files.Reader(ten, ahead), io.BytesIO(b"0123456789")
  for call in (
    lambda f: f.read(3),
    lambda f: f.read(2),
    lambda f: f.seek(-4, io.SEEK_END),
    lambda f: f.read(1),
    lambda f: f.seek(1, io.SEEK_CUR),
    lambda f: f.read(),
    lambda f: f.read(5),
    lambda f: f.seek(0),
    lambda f: f.read(1),
    lambda f: f.tell(),
    lambda f: f.seek(20),
    lambda f: f.read(1),
  ):
    assert call(reader) == call(plain)


def test_files_that_change(ten, tmp_path):
  assert files.read(ten, 2, 5) == b"234"
  (tmp_path / "ten").write_bytes(b"01234")
  with pytest.raises(ValueError, match="changed .* from 10 to 5 bytes. Start"):
    files.read(ten, 0, 2)
  (tmp_path / "ten").unlink()
  with pytest.raises(ValueError, match="ten: gone since it was listed"):
    files.read(ten, 0, 2)
  (tmp_path / "ten").mkdir()
  with pytest.raises(ValueError, match="cannot be read: Is a directory"):
    files.read(ten, 0, 2)


def test_what_fails_is_tried_again(monkeypatch):
  waits = []
  monkeypatch.setattr(files.time, "sleep", waits.append)

  def failing(times, error):
    tries = []

    def call():
      tries.append(1)
      if len(tries) <= times:
        raise error
      return len(tries)

    return call

  assert files.retried(failing(4, ConnectionError("reset"))) == 5
  assert waits == sorted(waits) and len(waits) == 4 and sum(waits) > 10
  with pytest.raises(OSError, match="TimeoutError: slow"):
    files.retried(failing(9, TimeoutError("slow")))
  waits.clear()
  with pytest.raises(FileNotFoundError):
    files.retried(failing(1, FileNotFoundError()))
  assert not waits
