from __future__ import annotations

import contextlib
import io
import json
import math
import os
import struct
import termios

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from kd_jax.report import metrics, tables
from kd_jax.report.run import progress as progress_lib
from kd_jax.report.run.progress import Progress


class Terminal:
  """A real terminal of `rows` x 100 characters that records its output."""

  def __init__(self, rows: int = 24):
    self._master, slave = os.openpty()
    termios.tcsetwinsize(slave, (rows, 100 if rows else 0))
    self.stream = os.fdopen(slave, "w", encoding="utf-8")

  def text(self) -> str:
    """What was written; can be called once."""
    self.stream.flush()
    os.set_blocking(self._master, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
      while chunk := os.read(self._master, 65536):
        data += chunk
    self.stream.close()
    os.close(self._master)
    return data.decode()


def raw_lines(workdir):
  text = (workdir / metrics.FILE).read_text()
  return [json.loads(line) for line in text.splitlines()]


def events(workdir):
  """Records of all event files, oldest first (length, crc, data, crc)."""
  found = []
  for path in sorted(workdir.glob("events.out.tfevents.*")):
    data = path.read_bytes()
    while data:
      (size,) = struct.unpack("<Q", data[:8])
      found.append(event_pb2.Event.FromString(data[12 : 12 + size]))
      data = data[16 + size :]
  return found


def scalars(workdir):
  return [
    (event.step, value.tag, value.simple_value)
    for event in events(workdir)
    for value in event.summary.value
  ]


def test_one_json_line_per_write_and_the_same_scalars_in_event_files(tmp_path):
  with metrics.Writer(tmp_path) as writer:
    writer.write(10, {"loss/feature": jnp.bfloat16(0.5), "images_per_s": 100})
    writer.write(jnp.int32(20), {"loss/feature": np.float64(0.25)})
  assert raw_lines(tmp_path) == [
    {"step": 10, "loss/feature": 0.5, "images_per_s": 100.0},
    {"step": 20, "loss/feature": 0.25},
  ]
  assert scalars(tmp_path) == [
    (10, "loss/feature", 0.5),
    (10, "images_per_s", 100.0),
    (20, "loss/feature", 0.25),
  ]


def test_a_line_is_on_disk_before_the_writer_is_closed(tmp_path):
  with metrics.Writer(tmp_path) as writer:
    writer.write(1, {"loss/a": 3.0})
    assert metrics.read(tmp_path) == [{"step": 1, "loss/a": 3.0}]


def test_values_that_are_not_finite_stay_valid_json(tmp_path):
  values = {"a": math.nan, "b": math.inf, "c": -math.inf}
  with metrics.Writer(tmp_path) as writer:
    writer.write(1, values)
  (line,) = raw_lines(tmp_path)
  assert line == {"step": 1, "a": "nan", "b": "inf", "c": "-inf"}
  (back,) = metrics.read(tmp_path)
  assert math.isnan(back["a"])
  assert (back["b"], back["c"]) == (math.inf, -math.inf)


def test_a_resumed_run_has_every_step_once(tmp_path):
  with metrics.Writer(tmp_path) as writer:
    for step in (10, 20, 30):
      writer.write(step, {"loss/a": float(step), "loss/b": math.nan})
  with (tmp_path / metrics.FILE).open("a") as file:
    file.write('{"step": 40, "loss/')  # killed here
  with metrics.Writer(tmp_path, start_step=20) as writer:
    writer.write(30, {"loss/a": -30.0})
  lines = metrics.read(tmp_path)
  assert [line["step"] for line in lines] == [10, 20, 30]
  assert [line["loss/a"] for line in lines] == [10.0, 20.0, -30.0]
  assert raw_lines(tmp_path)[0]["loss/b"] == "nan"
  assert not list(tmp_path.glob("*.new"))
  assert (30, "loss/a", -30.0) in scalars(tmp_path)
  restarts = [e.step for e in events(tmp_path) if e.HasField("session_log")]
  assert restarts == [0, 21]  # viewers drop what an older file has from 21 on


def test_a_run_that_starts_anew_drops_all_old_lines(tmp_path):
  with metrics.Writer(tmp_path) as writer:
    writer.write(0, {"eval/knn": 0.1})
    writer.write(5, {"eval/knn": 0.2})
  with metrics.Writer(tmp_path) as writer:
    writer.write(0, {"eval/knn": 0.3})
  assert metrics.read(tmp_path) == [{"step": 0, "eval/knn": 0.3}]


def test_an_inactive_writer_leaves_no_trace(tmp_path):
  with metrics.Writer(tmp_path / "run", active=False) as writer:
    writer.write(1, {"loss/a": 1.0})
  assert list(tmp_path.iterdir()) == []


def test_read_of_a_run_that_wrote_nothing(tmp_path):
  assert metrics.read(tmp_path) == []


def test_a_half_written_last_line_is_left_out(tmp_path):
  # The cut can fall such that the rest is a valid line but for the newline.
  text = '{"step": 1, "a": 2.0}\n{"step": 2, "a": 3.0}'
  (tmp_path / metrics.FILE).write_text(text)
  assert metrics.read(tmp_path) == [{"step": 1, "a": 2.0}]


@pytest.mark.parametrize("bad", ['{"step": 1, "a"', "[1, 2]", '{"a": 1.0}'])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, bad):
  good = '{"step": 3, "a": 2.0}\n'
  (tmp_path / metrics.FILE).write_text(good + bad + "\n" + good)
  with pytest.raises(ValueError, match="line 2 is no metrics line"):
    metrics.read(tmp_path)
  with pytest.raises(ValueError, match="Repair or delete that line"):
    metrics.Writer(tmp_path, start_step=3)


def test_only_single_numbers_are_metrics(tmp_path):
  with metrics.Writer(tmp_path) as writer:
    with pytest.raises(ValueError, match=r"'has_grad' has shape \(3,\)"):
      writer.write(1, {"loss/a": 1.0, "has_grad": np.ones(3)})
    with pytest.raises(ValueError, match="cannot be called 'step'"):
      writer.write(1, {"step": 1.0})
    with pytest.raises(ValueError, match="'phase' is 'warm', not a number"):
      writer.write(1, {"phase": "warm"})
  assert metrics.read(tmp_path) == []


def test_progress_in_a_log_file_prints_plain_lines():
  stream = io.StringIO()
  progress = Progress(3, label="kdep", stream=stream, every_s=0)
  progress.update(1, {"loss/feature": jnp.float32(1.23456)}, 1234.5)
  progress.write("checkpoint saved")
  progress.update(3, {"loss/feature": 0.1}, 1300.0)
  progress.close()
  first, saved, last = stream.getvalue().splitlines()
  assert first == "kdep step 1/3  loss/feature 1.235  1,234 images/s  ETA ?"
  assert saved == "checkpoint saved"
  assert last == "kdep step 3/3  loss/feature 0.1000  1,300 images/s  ETA 00:00"
  assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_progress_in_a_log_file_is_sparse_but_shows_first_and_last():
  stream = io.StringIO()
  progress = Progress(50, stream=stream, every_s=3600)
  for step in range(1, 51):
    progress.update(step, {"loss/a": step}, 10.0)
  shown = [line.split("  ")[0] for line in stream.getvalue().splitlines()]
  assert shown == ["step 1/50", "step 50/50"]


def test_time_left_counts_from_the_first_update(monkeypatch):
  clock = iter([100.0, 110.0])  # 10 s for 5 steps, 90 steps left
  monkeypatch.setattr(progress_lib.time, "monotonic", lambda: next(clock))
  stream = io.StringIO()
  progress = Progress(100, start_step=4, stream=stream, every_s=0)
  progress.update(5, {}, 1.0)
  progress.update(10, {}, 1.0)
  assert stream.getvalue().splitlines()[-1].endswith("ETA 03:00")


def test_progress_on_a_terminal_redraws_one_line():
  terminal = Terminal()
  progress = Progress(8, start_step=4, label="kdep", stream=terminal.stream)
  progress.update(8, {"loss/a": 0.5}, 77.0)
  progress.write("above")
  progress.close()
  text = terminal.text()
  drawn = [line.strip() for line in text.replace("\n", "\r").split("\r")]
  drawn = [line for line in drawn if line]
  assert drawn[0].endswith("kdep step 4/8")
  assert drawn[-1].endswith(
    "kdep step 8/8, loss/a 0.5000, 77 images/s, ETA 00:00"
  )
  assert "above" in drawn
  assert text.count("\n") == 2  # 'above' and the end


def test_a_terminal_of_unknown_size_gets_plain_lines():
  terminal = Terminal(rows=0)
  progress = Progress(8, stream=terminal.stream)
  progress.update(8, {"loss/a": 0.5}, 77.0)
  progress.close()
  expected = "step 8/8  loss/a 0.5000  77 images/s  ETA 00:00\r\n"
  assert terminal.text() == expected


def test_inactive_progress_is_silent():
  terminal, file = Terminal(), io.StringIO()
  for stream in (terminal.stream, file):
    progress = Progress(2, active=False, stream=stream)
    progress.update(2, {"loss/a": 1.0}, 1.0)
    progress.write("text")
    progress.close()
  assert terminal.text() == file.getvalue() == ""


def test_summary_aligns_two_columns_and_makes_numbers_readable():
  text = tables.summary(
    {"student": "resnet18", "parameters": 11689512, "lr": 0.1, "ema": False}
  )
  assert text == (
    "student     resnet18\n"
    "parameters  11,689,512\n"
    "lr          0.1\n"
    "ema         no"
  )
  assert tables.summary({}) == ""


def test_tap_table_puts_networks_side_by_side_in_the_order_they_run():
  def spec(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)

  student = {"pooled": spec(8, 512), "stage4": spec(8, 7, 7, 512)}
  teacher = {
    "logits": spec(8, 1000),
    "block00": spec(8, 197, 768),
    "pooled": spec(8, 768),
  }
  assert tables.tap_table({"student": student, "teacher": teacher}) == (
    "tap      student          teacher\n"
    "stage4   n x 7 x 7 x 512  -\n"
    "block00  -                n x 197 x 768\n"
    "pooled   n x 512          n x 768\n"
    "logits   -                n x 1000"
  )


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (0.123456, "0.1235"),
    (2, "2.000"),
    (1234567.8, "1,234,568"),
    (1e-6, "1.000e-06"),
    (123.456, "123.5"),
    (math.nan, "nan"),
  ],
)
def test_digits(value, text):
  assert tables.digits(value) == text
