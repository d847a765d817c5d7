"""Configs of detectors: the paper's numbers, and smoke runs."""

import json
import re

import pytest

import runs
from kd_jax import config as config_lib
from kd_jax import resolve
from kd_jax.build import detect as build
from kd_jax.build import networks, suite
from kd_jax.data.detection import Detection
from kd_jax.transfer.detection import detector, losses

CONFIGS = runs.ROOT / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("detect_*.py"))
SMOKES = (
  *("detect_voc_r18_c4:smoke", "detect_voc_mnv2_fpn:smoke"),
  *("detect_coco_r18_c4:smoke", "detect_coco_r18_c4:smoke_boxes"),
  *("detect_coco_mnv2_fpn:smoke", "detect_coco_mnv2_fpn:smoke_masks"),
  *("detect_coco_r50_fpn:smoke", "detect_coco_r50_fpn:smoke_masks"),
  *("detect_coco_vit_b:smoke", "detect_own:smoke", "detect_own:smoke_mnv2"),
  *("detect_scenes:smoke_masks", "detect_scenes:smoke_fpn"),
)
# Transfers of tests/running detect with C4.
RUN = ("detect_coco_mnv2_fpn:smoke_masks",)


def load(spec):
  name, _, variant = spec.partition(":")
  return config_lib.load(f"{CONFIGS / name}.py:{variant}")


def variants(name):
  with pytest.raises(ValueError, match="no variant 'nosuch'") as error:
    load(f"{name}:nosuch")
  return re.findall(r"'(\w*)'", str(error.value).partition("it has")[2])


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_every_variant_fit_together(name):
  found = variants(name)
  assert {f"smoke_{v}" for v in found if v and "smoke" not in v} < set(found)
  assert {"", "smoke"} <= set(found)
  for variant in (v for v in found if "suite" not in v):
    config = load(f"{name}:{variant}")
    assert config.is_locked and (config.steps < 10) == ("smoke" in variant)
    fields = config.preprocess.to_dict()
    views = resolve.construct(Detection, fields, "preprocess")
    student = networks.bare(config.student.to_dict(), config.dtype)
    fields = {"num_classes": 3, **config.detector.to_dict()}
    model = detector.build(student, fields)
    assert model.masks == views.masks
    learnt = {term for term, weight in config.losses.items() if weight}
    assert learnt == set(losses.names(model))


VOC = 18_000, (12_000, 16_000), 100
COCO = 90_000, (60_000, 80_000), 1000


@pytest.mark.parametrize(
  ("spec", "schedule", "student", "form", "norm"),
  [
    ("voc_r18_c4:", VOC, "resnet18", "c4", "precise"),
    ("voc_mnv2_fpn:", VOC, "mobilenetv2_100", "fpn", "frozen"),
    ("coco_r18_c4:", COCO, "resnet18", "c4", "precise"),
    ("coco_mnv2_fpn:", COCO, "mobilenetv2_100", "fpn", "frozen"),
    ("coco_r50_fpn:", COCO, "resnet50", "fpn", "frozen"),
    ("coco_r50_fpn:masks", COCO, "resnet50", "fpn", "frozen"),
  ],
)
def test_the_papers_recipes(spec, schedule, student, form, norm):
  config = load(f"detect_{spec}")
  optim, views, coco = config.optim, config.preprocess, schedule is COCO
  found = config.steps, tuple(optim.milestones), optim.warmup
  assert found == schedule and optim.schedule == "milestones"
  assert (config.batch_size, optim.lr, optim.weight_decay) == (16, 0.02, 1e-4)
  assert optim.warmup_lr == pytest.approx(2e-5) and optim.momentum == 0.9
  assert (config.student.name, config.detector.name) == (student, form)
  assert config.detector.norm == norm
  assert config.detector.get("extra_norm", False) == (form == "c4")
  least = 640 if coco else 480
  assert tuple(views.short) == tuple(range(least, 801, 32))
  assert (views.long, views.test_short, views.test_long) == (1333, 800, 1333)
  assert views.hflip == 0.5
  masks = spec in ("coco_r18_c4:", "coco_r50_fpn:masks")
  assert config.detector.masks == masks
  assert config.eval.rules == ("coco" if coco else "voc2007")
  assert config.data.name == ("coco" if coco else "voc")
  text = (CONFIGS / f"detect_{spec.partition(':')[0]}.py").read_text()
  for steps in (schedule[0], *schedule[1]):
    assert f"{steps:,}" in text


def test_the_recipe_of_vitdet():
  config = load("detect_coco_vit_b:")
  optim, views = config.optim, config.preprocess
  found = config.steps, tuple(optim.milestones), optim.warmup
  assert found == (184_375, (163_889, 177_546), 250)
  assert (optim.name, optim.lr, optim.weight_decay) == ("adamw", 1e-4, 0.1)
  assert (config.batch_size, optim.layer_decay) == (64, 0.7)
  assert (tuple(views.short), tuple(views.jitter)) == ((1024,), (0.1, 2.0))
  student = config.student
  assert student.name == "vit_base_patch16_224" and config.detector.masks
  wanted = {"img_size": 1024, "drop_path_rate": 0.1}
  assert student.overrides.to_dict() == wanted


def test_columns_of_the_suite(tmp_path):
  """Students of any run: what the transfer does not say is theirs."""
  config = config_lib.load(f"{CONFIGS / 'suite.py'}")
  columns = [name for name in config.transfers if name.startswith("detect_")]
  assert set(columns) < set(NAMES) and len(columns) == 4
  with config.unlocked():
    config.columns = tuple(columns)
  rows = {
    "scratch": suite.Row("from scratch"),
    "other": suite.Row(
      "another", student={"name": "mobilenetv2_050", "overrides": {}}
    ),
  }
  found = suite.cells(config, rows, tmp_path)
  assert len(found) == 8 and {c.fields["task"] for c in found} == {"detect"}
  for cell in found:
    alone = load(f"{cell.column}:").to_dict()
    if cell.row == "other":
      assert cell.fields["student"] == rows["other"].student
    else:
      assert cell.fields == alone


def test_what_does_not_decay(tmp_path):
  """Normalisation does not, biases of convolutions do."""
  plan = build.plan(load("detect_voc_r18_c4:smoke"), tmp_path)
  optim = plan.experiment.optim
  paths = {
    "student/backbone/stage1/block0/bn1/scale": False,
    "student/backbone/stage2/block0/downsample_bn/bias": False,
    "student/box/norm/scale": False,
    "student/rpn/conv/bias": True,
    "student/backbone/stage1/block0/conv1/kernel": True,
  }

  class Leaf:
    ndim = 1

  assert optim._mask(dict.fromkeys(paths, Leaf)) == paths


@pytest.mark.slow
@pytest.mark.parametrize("spec", [s for s in SMOKES if s not in RUN])
def test_smoke_runs_can_be_planned(spec, tmp_path):
  plan = build.plan(load(spec), tmp_path)
  assert plan.num_runs >= 1 and plan.test.box_names


@pytest.mark.slow
@pytest.mark.parametrize("spec", RUN)
def test_smoke_runs_end(spec, tmp_path):
  name, _, variant = spec.partition(":")
  config = CONFIGS / f"{name}.py"
  runs.here(tmp_path, "eval.pictures=1", variant=variant, config=config)
  found = json.loads((tmp_path / "results.json").read_text())
  masks = load(spec).detector.masks
  assert ("mask_ap" in found["figures"]) == masks
  assert (tmp_path / "student" / "model.safetensors").exists()
  assert (tmp_path / "heads" / "config.json").exists()
