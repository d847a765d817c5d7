"""A disk that is full ends a run in one line, and costs nothing but time."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import disk_case
import runs
from kd_jax import disk, main
from kd_jax.data.formats import array_cache, folder_listing
from kd_jax.report import metrics

# In the order of a run, each with what it says about itself.
WRITERS = {
  "kd_jax.workdir.write": "config.json cannot be written to",
  "kd_jax.align.basis.save": "artifact.npz cannot be written to",
  "kd_jax.report.event_file.EventFile.__init__": "metrics cannot be written to",
  "kd_jax.report.metrics.Writer.write": "metrics of step 1 cannot be written",
  "kd_jax.report.event_file.EventFile.close": "metrics cannot be written to",
  "kd_jax.convert.save_timm": "config.json cannot be written to",
  "safetensors.numpy.save_file": "model.safetensors cannot be written to",
  "kd_jax.report.page.write_report": "loss.png cannot be written to",
}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
  folder = tmp_path_factory.mktemp("quiet")
  fields = [f"teacher.weights={runs.save_teacher(folder / 'teacher')}"]
  runs.here(folder / "run", *fields)
  return folder / "run", fields


def said(text):
  """The one line that a run ends with."""
  assert "Traceback" not in text and "Exception ignored" not in text, text
  (line,) = [x for x in text.splitlines() if x.startswith("error: ")]
  assert text.rstrip().endswith(line)
  return line


def student(where):
  return safetensors_numpy.load_file(where / "student" / "model.safetensors")


def assert_same(ours, theirs):
  mine, other = student(ours), student(theirs)
  assert set(mine) == set(other) and len(other) > 20
  for name, array in other.items():
    assert np.array_equal(mine[name], array), name
  numbers = [
    [{**line, "images_per_s": 0} for line in metrics.read(where)]
    for where in (ours, theirs)
  ]
  assert numbers[0] == numbers[1] and len(numbers[0]) == 13


@pytest.mark.slow
def test_one_run_that_every_writer_ends_once(
  quiet, tmp_path, capsys, monkeypatch
):
  theirs, fields = quiet
  where = tmp_path / "run"
  for name, text in WRITERS.items():
    with monkeypatch.context() as patch:
      place, attribute = disk_case.owner_of(name)
      function = disk_case.refusing(getattr(place, attribute))
      patch.setattr(place, attribute, function)
      assert main.main(runs.arguments(where, *fields)) == 1
    line = said(capsys.readouterr().err)
    assert text in line and str(where) in line
    assert re.search(r"\(File too large: .*[\d.]+ [kMG]B are free\)\. ", line)
    assert "(ulimit -f), then run the same command again" in line
    assert not [*tmp_path.rglob("*.tmp")]
  assert main.main(runs.arguments(where, *fields)) == 0
  assert_same(where, theirs)


def start(name, where, *fields, variant=""):
  """A process whose disk is full from the first call of a function on."""
  arguments = runs.arguments(where, *fields, variant=variant)
  return subprocess.Popen(
    [sys.executable, str(runs.ROOT / "tests" / "disk_case.py"), name]
    + arguments,
    cwd=runs.ROOT,
    env={**os.environ, **runs.ENV, "PYTHONPATH": str(runs.ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.slow
def test_whole_processes_whose_threads_write(quiet, tmp_path, capsys):
  """Orbax and TensorStore fail in threads, which must not say so too."""
  theirs, fields = quiet
  train = (tmp_path / "run", *fields, "checkpoint.every=1")
  bank = (tmp_path / "bank", *fields)
  processes = [
    start("kd_jax.train.checkpoints.Checkpoints.save", *train),
    start("kd_jax.data.bank.writer.Writer._store", *bank, variant="bank"),
  ]
  (status, saving), (other, storing) = map(runs.finish, processes)
  assert status == 1 and other == 1
  line = said(saving)
  assert f"no checkpoint can be written to {tmp_path}/run/checkpoints" in line
  assert re.search(r"\(File too large: it needs at least 4\d\.\d kB, and", line)
  line = said(storing)
  assert f"shard 0 of pass 0 cannot be written to {tmp_path}/bank" in line
  assert re.search(
    r"it needs at least [\d.]+ kB, and [\d.]+ [MG]B are free", line
  )
  runs.here(*bank, variant="bank")
  runs.here(tmp_path / "run", *fields)
  assert_same(tmp_path / "run", theirs)


def test_a_full_disk_is_known_by_what_libraries_say():
  said = "Failed writing: No space left on device [os_error_code='28']"
  assert disk.code(ValueError(said)) == 28
  assert disk.code(RuntimeError("I/O error: full (os error 122)")) == 122
  assert disk.code(OSError("4096 requested and 512 written")) == 28
  assert disk.code(ValueError("4096 records")) is None
  with (
    pytest.raises(PermissionError),
    disk.writing("a file", "/nowhere"),
  ):
    raise PermissionError(13, "no permission")
  with (
    pytest.raises(disk.FullError, match="^the inner cannot"),
    disk.writing("the outer", "/nowhere"),
    disk.writing("the inner", "/nowhere"),
  ):
    raise OSError(28, "full")


def test_a_list_of_images_that_fits_nowhere(tmp_path, monkeypatch, caplog):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path / "cache"))
  images = tmp_path / "images"
  images.mkdir()
  for number in range(9):
    (images / f"{number}.jpg").touch()
  with (
    disk_case.full(),
    caplog.at_level("WARNING"),
    pytest.raises(ValueError, match="the list of images cannot be written to"),
  ):
    folder_listing.find(str(images))
  (record,) = caplog.records
  assert "set KD_JAX_CACHE to a directory of yours" in record.getMessage()
  assert not [*(tmp_path / "cache").rglob("*.npy")]
  assert len(folder_listing.find(str(images))) == 9


def test_arrays_of_the_cache(tmp_path, monkeypatch):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path))
  numbers = np.arange(1000)
  with (
    disk_case.full(),
    pytest.raises(ValueError, match="it needs at least 8 kB, and .* are free"),
  ):
    array_cache.table("kind", "numbers", lambda: numbers)
  assert not [*tmp_path.rglob("*.*")]
  kept = array_cache.table("kind", "numbers", lambda: numbers)
  assert np.array_equal(kept, numbers)


def test_a_disk_that_is_full_where_nobody_looked(tmp_path, capsys, monkeypatch):
  def fill_it(*_):
    with disk_case.full(), open(tmp_path / "odd.txt", "wb") as file:
      os.write(file.fileno(), bytes(disk_case.MOST))
      os.write(file.fileno(), b"more")

  monkeypatch.setattr("kd_jax.build.training.method", fill_it)
  assert main.main(runs.arguments(tmp_path / "run")) == 1
  line = said(capsys.readouterr().err)
  assert line.startswith("error: a file cannot be written") and "27" in line


@pytest.mark.parametrize(
  ("number", "text"),
  [(0, "0 kB"), (146, "0.146 kB"), (2600, "2.6 kB"), (3.1e9, "3.1 GB")],
)
def test_sizes(number, text):
  assert disk.size(number) == text
