"""Configs of detectors: the paper's numbers, and smoke runs."""

import json

import pytest

import runs
from kd_jax import config as config_lib
from kd_jax.build import detect as build

CONFIGS = runs.ROOT / "configs"
SMOKES = (
  *("detect_voc_r18_c4:smoke", "detect_voc_mnv2_fpn:smoke"),
  *("detect_coco_r18_c4:smoke", "detect_coco_r18_c4:smoke_boxes"),
  *("detect_coco_mnv2_fpn:smoke", "detect_coco_mnv2_fpn:smoke_masks"),
  *("detect_coco_r50_fpn:smoke", "detect_coco_r50_fpn:smoke_masks"),
  *("detect_coco_vit_b:smoke", "detect_own:smoke", "detect_own:smoke_mnv2"),
  *("detect_scenes:smoke_masks", "detect_scenes:smoke_fpn"),
)
RUN = (
  "detect_coco_r18_c4:smoke",
  "detect_coco_mnv2_fpn:smoke_masks",
  "detect_coco_vit_b:smoke",
)


def load(spec):
  name, _, variant = spec.partition(":")
  return config_lib.load(f"{CONFIGS / name}.py:{variant}")


def test_the_papers_recipes():
  voc, coco = load("detect_voc_r18_c4:"), load("detect_coco_r18_c4:")
  assert (voc.steps, tuple(voc.optim.milestones)) == (18_000, (12_000, 16_000))
  assert (coco.steps, tuple(coco.optim.milestones)) == (
    90_000,
    (60_000, 80_000),
  )
  assert (voc.optim.warmup, coco.optim.warmup) == (100, 1000)
  for config in (voc, coco):
    optim = config.optim
    assert (config.batch_size, optim.lr, optim.weight_decay) == (16, 0.02, 1e-4)
    assert optim.warmup_lr == pytest.approx(2e-5) and optim.momentum == 0.9
    assert config.detector.norm == "precise" and config.detector.extra_norm
    assert config.preprocess.long == 1333 and config.preprocess.hflip == 0.5
  assert coco.detector.masks and not voc.detector.masks
  assert min(voc.preprocess.short) == 480 and min(coco.preprocess.short) == 640
  assert voc.eval.rules == "voc2007"


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
