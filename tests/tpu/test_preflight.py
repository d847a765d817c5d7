"""Tiny networks, compiled for eight chips that are not here."""

import json
import os

import jax
import pytest

import runs
from kd_jax import main
from kd_jax.preflight import topologies

SMOKE = runs.ROOT / "configs" / "kdep_r18.py"
ON = ("dry_run=True", "topology=v5e:2x4")


def refused(capsys, *fields, config=SMOKE, folder="nowhere"):
  argv = runs.arguments(folder, *fields, variant="smoke", config=config)
  assert main.main(argv) == 1
  (line,) = capsys.readouterr().err.strip().splitlines()
  return line


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
  """(folder, what it says) of a preflight in a process of its own."""
  folder = tmp_path_factory.mktemp("tpu")
  said = runs.complete(
    folder,
    *ON,
    "price_per_chip_hour=1.5",
    "teacher.source=online",
    "teacher.weights=timm/not_here",
    "dtype=bfloat16",
    variant="smoke",
    config=SMOKE,
  )
  return folder, said


def test_a_preflight_needs_no_weights_and_no_chip(kept):
  folder, said = kept
  found = json.loads((folder / "preflight.json").read_text())
  assert found["topology"] == "v5e:2x4" and found["chips"] == 8
  assert found["fits"] and found["hosts"] == 1 and found["cost"] > 0
  (phase,) = found["phases"]
  memory = phase["memory"]
  assert phase["needs"] == sum(memory.values()) < 2**28
  assert memory["padding"] > 0 and memory["temporaries"] > 0
  kinds = {x["kind"]: x for x in phase["collectives"]}
  assert kinds["all-reduce"]["count"] > 10
  assert phase["seconds"]["bound"] in said and "never run" in said
  assert phase["cycles"] > 10_000 and "libtpu_init" not in said
  assert "yes, " in said and "assumed: teacher" in said
  assert "Preflight" in (folder / "report.html").read_text()
  assert not (folder / "checkpoints").exists()


def test_operations_agree_with_an_independent_count(tmp_path):
  """On one chip, and on networks that are mostly products."""
  fields = ("topology=v5e-1", "dry_run=True", "batch_size=32")
  wide = "student.overrides.channels=(64,64,128,128)"
  size = "preprocess.image_size=64"
  runs.complete(tmp_path, *fields, wide, size, variant="smoke", config=SMOKE)
  found = json.loads((tmp_path / "preflight.json").read_text())
  (phase,) = found["phases"]
  assert phase["flops"] == pytest.approx(phase["counted"], rel=0.03)
  assert not phase["collectives"]


def test_loops_count_as_often_as_they_run(tmp_path, kept):
  fields = ("batch_size=32", "accum_steps=4", "dtype=bfloat16")
  runs.complete(tmp_path, *ON, *fields, variant="smoke", config=SMOKE)
  (phase,) = json.loads((tmp_path / "preflight.json").read_text())["phases"]
  (whole,) = json.loads((kept[0] / "preflight.json").read_text())["phases"]
  (summed,) = phase["collectives"]
  (once,) = whole["collectives"]
  # Statistics of every microbatch, and gradients.
  assert summed["count"] > 3 * once["count"] > 60
  assert phase["flops"] == pytest.approx(phase["counted"], rel=0.3)
  # Batches of 32 and of 8; what the optimizer does is done once.
  assert phase["counted"] == pytest.approx(4 * whole["counted"], rel=0.1)


def test_a_teacher_shared_out_is_gathered(tmp_path, kept):
  """An eighth of it on every chip, and what is missing in every step."""
  fields = ("teacher.fsdp=True", "dtype=bfloat16")
  runs.complete(tmp_path, *ON, *fields, variant="smoke", config=SMOKE)
  whole = json.loads((kept[0] / "preflight.json").read_text())["phases"][0]
  (phase,) = json.loads((tmp_path / "preflight.json").read_text())["phases"]
  kinds = {x["kind"]: x["count"] for x in phase["collectives"]}
  assert kinds["all-gather"] > 5
  assert "all-gather" not in {x["kind"] for x in whole["collectives"]}
  assert phase["memory"]["teacher"] < 0.5 * whole["memory"]["teacher"]
  assert phase["memory"]["student"] == whole["memory"]["student"]


def test_a_later_run_in_the_process_is_on_the_cpu(capsys):
  before = dict(os.environ)
  devices = topologies.devices(topologies.find("v5e-8"))
  assert {x.device_kind for x in devices} == {"TPU v5 lite"}
  assert [x.id for x in devices] == sorted(x.id for x in devices)
  assert len(topologies.devices(topologies.find("v4-8"))) == 4
  assert len(topologies.devices(topologies.find("v5p-8"))) == 4
  assert (
    len(
      {x.process_index for x in topologies.devices(topologies.find("v6e-64"))}
    )
    == 16
  )
  left = {k for k in os.environ if os.environ[k] != before.get(k)}
  assert left <= {"TPU_LIBRARY_PATH"}
  assert jax.devices()[0].platform == "cpu"
  assert float(jax.numpy.ones(3).sum()) == 3


@pytest.mark.parametrize(
  ("field", "said"),
  [
    ("topology=v5e-7", "no v5e slice of 7 chips"),
    ("topology=h100", "is no TPU slice"),
    ("batch_size=12", "The nearest is --config.batch_size=16"),
    ("teacher.source=timm", "cannot be compiled for a topology"),
  ],
)
def test_mistakes_are_one_line(capsys, tmp_path, field, said):
  line = refused(capsys, *ON, field, folder=tmp_path)
  assert line.startswith("error: ") and said in line


def test_a_table_goes_on_after_a_failure_and_is_resumed(tmp_path, capsys):
  config = runs.ROOT / "configs" / "topologies.py"
  fields = (
    f"recipe={SMOKE}:smoke",
    "topologies=('v5e-8','v5p-8')",
    "batch_sizes=(12,)",
  )
  argv = runs.arguments(tmp_path, *fields, config=config)
  assert main.main(argv) == 0
  first = json.loads((tmp_path / "results.json").read_text())
  assert [bool(x["found"]) for x in first] == [False, True]
  assert "positive multiple of 8" in first[0]["error"]
  assert "--config.topology=v5p-8" in first[1]["command"]
  made = sorted(tmp_path.glob("cells/*/preflight.json"))
  times = [path.stat().st_mtime_ns for path in made]
  assert len(made) == 1 and main.main(argv) == 0
  assert [path.stat().st_mtime_ns for path in made] == times
  table = (tmp_path / "results.md").read_text()
  assert "| v5p-8 | 12 |" in table and "positive multiple" in table
  assert table in capsys.readouterr().out
