"""The recipes of stage-wise distillation, and small runs of them."""

import json
import pathlib

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from kd_jax import config as config_lib
from kd_jax import main, trees
from kd_jax.build import training
from kd_jax.convert import load_pretrained
from kd_jax.methods import stagewise
from kd_jax.train.optim import Optim
from kd_jax.transfer import files

ROOT = pathlib.Path(__file__).parents[2]
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 4}
VIT |= {"num_heads": 2}


def load(spec):
  return config_lib.load(f"{ROOT}/configs/{spec}")


@pytest.mark.parametrize(
  ("name", "batch", "rate", "decay", "epochs", "head"),
  [
    ("stagewise_r18", 1024, 0.4, 1e-4, 100, 20),
    ("stagewise_cifar", 64, 0.05, 5e-4, 240, 30),
  ],
)
def test_the_recipes(name, batch, rate, decay, epochs, head):
  config = load(f"{name}.py")
  assert (config.batch_size, config.optim.lr) == (batch, rate)
  images = {1024: 1_281_167, 64: 50_000}[batch]
  assert config.steps == (epochs + head) * (images // batch)
  method = training.method(config)
  # What the config spells out are the method's own defaults.
  assert method == stagewise.Method(
    terms=("ce", "stage1", "stage2", "stage3", "stage4"),
    head_frac=head / (epochs + head),
  )
  optim = Optim(**config.optim.to_dict())
  assert (optim.nesterov, optim.weight_decay, optim.momentum) == (
    True,
    decay,
    0.9,
  )
  curve = optim.rate(1000)
  assert float(curve(50)) == pytest.approx(rate)
  assert float(curve(1000)) == pytest.approx(0, abs=1e-6)
  assert training.method(load(f"{name}.py:joint")).joint
  # No test image decides which weights are handed on.
  judge = config.eval.judge if config.eval.judge.name else config.data
  assert judge.split == "train" != config.eval.test.split


def test_the_teacher_of_cifar_learns_from_labels():
  config = load("stagewise_cifar.py:teacher")
  assert (config.student.name, config.method.name) == ("resnet34", "supervised")
  assert training.method(config).terms == ("ce",)


def smoke(spec, where, *fields):
  """(lines of metrics.jsonl, phases) of a small run."""
  flags = [f"--config.{field}" for field in fields]
  arguments = ["--config", f"{ROOT}/configs/{spec}", "--workdir", str(where)]
  assert main.main([*arguments, *flags]) == 0
  text = (where / "metrics.jsonl").read_text()
  phases = where / "phases.json"
  return [json.loads(line) for line in text.splitlines()], (
    json.loads(phases.read_text()) if phases.exists() else {}
  )


@pytest.mark.slow
def test_stages_without_labels_from_a_dense_teacher(tmp_path):
  lines, phases = smoke(
    "stagewise_dense.py:smoke",
    tmp_path,
    "losses.stage1=0.0",
    "losses.stage3=0.0",
    "steps=4",
  )
  assert list(phases) == ["stage2", "stage4"]
  assert phases["stage4"][1] == 4 == lines[-1]["step"]
  assert not [k for line in lines for k in line if "ce" in k.split("/")]
  summary = json.loads((tmp_path / "summary.json").read_text())
  assert summary["steps_per_phase"].startswith("stage2 ")
  page = (tmp_path / "report.html").read_text()
  assert "<h2>Phases</h2>" in page and "<td>stage4</td>" in page
  model, variables = load_pretrained("resnet18", tmp_path / "student")
  image = np.ones((1, 32, 32, 3), np.float32)
  found = model.apply(variables, image, train=False, end="stage4")["stage4"]
  assert np.isfinite(found).all() and np.ptp(found) > 0


def test_the_scenes_are_the_method_from_end_to_end():
  """Teacher and student have one task, and the head learns on frozen stages."""
  config = load("stagewise_dense.py:scenes")
  teacher, stages = config.runs.teacher, config.runs.stages
  assert config.order == ("teacher", "stages") and config.is_locked
  assert teacher.task == "segment" and not teacher.transfer.shots
  assert stages.teacher.weights == "teacher/student"
  assert training.method(stages) == training.method(load("stagewise_dense.py"))
  assert stages.data.labels is stages.eval.judge.labels is False
  row = config.students.stages
  assert (row.init_from, row.trains) == ("stages", "head")
  for transfer in config.transfers.values():
    assert transfer.data.classes == teacher.data.classes == stages.data.classes
    student = {**transfer.student.overrides, "num_classes": 0}
    assert student == stages.student.overrides.to_dict()
  seeds = {stages.data.seed, stages.eval.judge.seed, teacher.data.seed}
  assert transfer.test.split == "test" and transfer.test.seed not in seeds


@pytest.mark.slow
def test_the_head_is_the_last_phase_of_a_dense_task(tmp_path):
  """One command; what the stages learned stays, statistics and all."""
  spec = f"{ROOT}/configs/stagewise_dense.py:scenes_smoke"
  assert main.main(["--config", spec, "--workdir", str(tmp_path)]) == 0
  cells = tmp_path / "transfers" / "masks"
  taught = tensors(tmp_path / "teacher")
  learned, frozen = tensors(tmp_path / "stages"), tensors(cells / "stages")
  assert set(learned) == set(frozen) == set(taught)
  assert any(name.endswith("running_var") for name in learned)
  assert [k for k in learned if not np.array_equal(learned[k], frozen[k])] == []
  # Without an effect on the comparison: from scratch everything has moved.
  moved = tensors(cells / "scratch")
  same = [k for k in learned if np.array_equal(learned[k], moved[k])]
  assert all(name.endswith("num_batches_tracked") for name in same)
  # Both began with the same head, and it has learned.
  start, end = (files.load(cells / name)[1] for name in ("untrained", "stages"))
  heads = [trees.flatten(each["params"]["head"]) for each in (start, end)]
  assert heads[0].keys() == heads[1].keys()
  assert all(np.any(heads[0][k] != heads[1][k]) for k in heads[0])
  phases = json.loads((tmp_path / "stages" / "phases.json").read_text())
  assert list(phases) == [f"stage{k}" for k in (1, 2, 3, 4)]
  # The teacher of the stages is what the segmentation has left.
  summary = json.loads((tmp_path / "stages" / "summary.json").read_text())
  assert str(tmp_path / "teacher" / "student") in str(summary)
  found = json.loads((tmp_path / "results.json").read_text())
  rows = {
    row.title for row in load("stagewise_dense.py:scenes").students.values()
  }
  assert set(found["values"]) == rows
  facts = json.loads((tmp_path / "teacher/student/config.json").read_text())
  facts = facts["pretrained_cfg"]
  assert (facts["interpolation"], facts["crop_pct"]) == ("bilinear", 1.0)


def tensors(run):
  """{name: array} of the backbone that a run has left."""
  return safetensors_numpy.load_file(run / "student" / "model.safetensors")


@pytest.mark.slow
def test_a_cnn_learns_all_stages_of_a_transformer_at_once(tmp_path):
  """Tokens are maps; channels are standardised with fitted statistics."""
  lines, phases = smoke(
    "stagewise_r18.py:joint_smoke",
    tmp_path,
    "teacher.name=vit_tiny_patch16_224",
    *(f"teacher.overrides.{k}={v}" for k, v in VIT.items()),
    "losses.ce=0.0",
    "steps=2",
  )
  assert phases == {}  # There is only one.
  terms = [f"stage{k}" for k in (1, 2, 3, 4)]
  first = [lines[0][f"loss/{term}"] for term in terms]
  assert sum(first) == pytest.approx(lines[0]["loss/total"], rel=1e-5)
  for tap in (*terms[:3], "final"):
    with np.load(tmp_path / f"artifact_{tap}.npz") as file:
      assert int(file["count"]) == 96 * 16  # every patch of every image
  # Standardised targets have, over the data, a mean square of 1; those of the
  # later stages are averages of several patches.
  for term in terms[:2]:
    ratio = lines[-1][f"eval/{term}"] / lines[-1][f"eval/{term}_error"]
    assert ratio == pytest.approx(1, rel=0.2)
