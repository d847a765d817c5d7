"""Configs of transfer: every variant holds, the numbers are the papers'."""

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest

import kd_jax
from kd_jax import config as config_lib
from kd_jax import main, resolve
from kd_jax.build import classify, images, segment, training, transfer
from kd_jax.data.dense import Dense
from kd_jax.data.sources import folder
from kd_jax.train.views import Mix

ROOT = pathlib.Path(__file__).parents[1]
NAMES = sorted(p.stem for p in (ROOT / "configs").glob("transfer_*.py"))
# Real runs; others go the same ways.
QUICK = ("dtd:smoke_paper",)
SLOW = ("digits:smoke_probe", "cityscapes:smoke_mnv2")


def spec(name, variant=""):
  return (
    f"{ROOT}/configs/transfer_{name.removeprefix('transfer_')}.py:{variant}"
  )


def load(name, variant="", *overrides):
  return config_lib.load(spec(name, variant), overrides)


def variants(name):
  with pytest.raises(ValueError, match="no variant 'nosuch'") as error:
    load(name, "nosuch")
  return re.findall(r"'(\w*)'", str(error.value).partition("it has")[2])


@pytest.mark.parametrize("name", NAMES)
def test_fields_of_every_variant_are_those_of_their_parts(name):
  found = variants(name)
  assert "" in found and "smoke" in found
  assert {f"smoke_{v}" for v in found if v and "smoke" not in v} < set(found)
  for variant in found:
    config = load(name, variant)
    assert config.is_locked
    protocol = transfer.protocol(config)
    assert protocol.searches == ("paper" not in variant)
    best_test = protocol.select == "best_test"
    assert best_test == ("paper" in variant) == (config.eval.every > 0)
    training.optim(config.optim.to_dict())
    resolve.construct(Mix, config.mix.to_dict(), "mix")
    overrides = config.student.overrides.to_dict()
    kd_jax.create_model(config.student.name, **overrides)
    fields = config.preprocess.to_dict()
    if config.task == "classify":
      images.preprocess(fields)
      continue
    resolve.construct(Dense, fields, "preprocess")
    # All of them, so that every one can be set on the command line.
    assert {"fill", *fields} == {
      field.name for field in dataclasses.fields(Dense)
    }
    for part in (config.head, config.aux):
      if part.name:
        head = {"num_classes": 3, **part.to_dict()}
        resolve.build("transfer.heads", "Head", head)
    assert bool(config.aux.name) == (config.losses.aux > 0)


@pytest.mark.parametrize(
  ("name", "images_", "steps", "every", "rates"),
  [
    ("cifar100", 50_000, 117_187, 3906, ()),
    ("dtd", 3760, 8812, 293, ()),
    ("caltech256", 15_420, 36_140, 1204, ()),
    ("cub200", 5994, 14_048, 468, (1e-3, 1e-2)),
  ],
)
def test_classification_as_in_the_paper(name, images_, steps, every, rates):
  config = load(name, "paper")
  assert (config.batch_size, config.steps) == (64, steps)
  assert steps == 150 * images_ // 64 and every == 5 * steps // 150
  assert config.eval.every == every and config.transfer.rates == rates
  assert len(config.transfer.seeds) == 2
  optim = training.optim(config.optim.to_dict())
  assert (optim.name, optim.momentum, optim.weight_decay) == ("sgd", 0.9, 5e-4)
  assert optim.decay_all and not optim.nesterov
  rate = optim.rate(steps)
  third = steps // 3
  found = [float(rate(s)) for s in (0, third, third + 2, 2 * third, steps - 1)]
  np.testing.assert_allclose(found, [1e-3, 1e-3, 1e-4, 1e-4, 1e-5], rtol=1e-5)
  model = kd_jax.create_model(
    config.student.name, **config.student.overrides.to_dict()
  )
  raw = model.mean == (0.0,) * 3 and model.std == (1.0,) * 3
  assert raw == (name != "cifar100") and model.mean[0] != 0.485
  text = (ROOT / "configs" / f"transfer_{name}.py").read_text()
  for number in (steps, -(-steps // 3), 2 * -(-steps // 3), every):
    assert f"{number:,}" in text or str(number) in text
  mobile = load(name, "paper_mnv2")
  assert mobile.student.name == "mobilenetv2_100" and mobile.steps == steps


@pytest.mark.parametrize(
  ("name", "steps", "epoch", "rates", "aux", "scale"),
  [
    ("voc2012", 33_050, 661, (0.01, 0.01), (0.4, 0.4), (0.5, 1.5)),
    ("cityscapes", 37_000, 185, (0.01, 0.006), (0.4, 0.4), (0.5, 2.0)),
    ("ade20k", 126_300, 1263, (0.01, 0.01), (0.4, 0.0), (0.5, 2.0)),
  ],
)
def test_segmentation_as_in_the_paper(name, steps, epoch, rates, aux, scale):
  every = {"voc2012": 2, "cityscapes": 20, "ade20k": 10}[name]
  for config, rate in zip(
    (load(name, "paper"), load(name, "paper_mnv2")), rates, strict=True
  ):
    assert (config.batch_size, config.steps) == (16, steps)
    assert config.eval.every == every * epoch
    optim = training.optim(config.optim.to_dict())
    assert (optim.lr, optim.momentum, optim.weight_decay) == (rate, 0.9, 1e-4)
    assert (optim.schedule, optim.power, optim.head_lr) == ("poly", 0.9, 10)
    assert tuple(config.preprocess.scale) == scale and config.eval.mirror
  resnet, mobile = load(name, "paper"), load(name, "paper_mnv2")
  assert resnet.losses.to_dict() == {"ce": 1.0, "aux": aux[0]}
  assert mobile.losses.to_dict() == {"ce": 1.0 + aux[1], "aux": 0.0}
  assert resnet.student.overrides.to_dict() == {
    "output_stride": 8,
    "dilation_type": "conv2",
  }
  assert mobile.head.to_dict() == {"name": "psp", "act_layer": "relu6"}
  text = (ROOT / "configs" / f"transfer_{name}.py").read_text()
  assert f"{steps:,}" in text and str(epoch) in text


def test_the_usual_protocol_counts_classes_where_the_paper_does():
  for name, figure in (
    ("flowers", "mean_per_class"),
    ("pets", "mean_per_class"),
    ("food101", "top1"),
    ("cars", "top1"),
  ):
    config = load(name)
    assert (config.batch_size, config.steps) == (256, 20_000)
    assert config.eval.figure == figure and config.optim.nesterov


@pytest.mark.parametrize(
  ("name", "field", "match"),
  [
    ("dtd", "eval.figure=top5", "eval.figure is 'top5'; .*'top1'"),
    ("dtd", "test.num_classes=5", r"4 classes .* 5; .* \['4'\]"),
    ("dtd", "transfer.holdout=0.8", "a run has 8 labelled .*batch_size=8"),
    ("digits", "transfer.shots=1000", "transfer.shots=1000, .* lower it to 97"),
  ],
)
def test_classifications_that_cannot_be(name, field, match, tmp_path):
  more = ("batch_size=16",) if name == "dtd" else ()
  config = load(name, "smoke", field, *more)
  with pytest.raises(ValueError, match=match):
    classify.plan(config, tmp_path)


@pytest.mark.parametrize(
  ("variant", "field", "match"),
  [
    ("smoke", "aux.name=", "losses.aux is 0.4, .* no auxiliary head"),
    ("smoke", "losses.aux=0", "aux.name is 'fcn', .* losses.aux is 0"),
    ("smoke_vit", "head.name=upernet", "tokens .* --config.head.name=light"),
    ("smoke", "test.size=40", r"0: its image.* 40x40 .*eval_size=\(40, 40\)"),
    ("smoke", "mix.mixup=0.5", "masks are not mixed"),
  ],
)
def test_segmentations_that_cannot_be(variant, field, match, tmp_path):
  config = load("voc2012", variant, field)
  with pytest.raises(ValueError, match=match):
    segment.plan(config, tmp_path)


def test_another_head_keeps_no_field_of_the_former_one():
  config = load("voc2012", "mnv2", "head.name=upernet", "head.channels=64")
  assert config.head.to_dict() == {"name": "upernet", "channels": 64}
  config = load("voc2012", "", "aux.name=", "losses.aux=0")
  assert config.aux.to_dict() == {"name": ""}


@pytest.mark.parametrize(
  "run", [*QUICK, *(pytest.param(r, marks=pytest.mark.slow) for r in SLOW)]
)
def test_smoke_runs_to_results_and_a_report(run, tmp_path):
  name, _, variant = run.partition(":")
  arguments = ["--config", spec(name, variant), "--workdir", str(tmp_path)]
  assert main.main(arguments) == 0
  config = load(name, variant)
  found = json.loads((tmp_path / "results.json").read_text())
  assert found["best_test"] == ("paper" in variant)
  rates = config.transfer.rates or (config.optim.lr,)
  assert found["rate"] in rates
  assert len(found["search"]) == (0 if "paper" in variant else 2)
  seeds = len(config.transfer.seeds)
  figures = found["figures"][found["figure"]]
  assert len(figures) == seeds and all(0 <= value <= 1 for value in figures)
  assert found["figure"] == config.eval.get("figure", "miou")
  finals = list((tmp_path / "trials").glob("final_*"))
  tried = len(rates) if "paper" in variant else 1
  assert len(finals) == seeds * tried
  for final in finals:
    assert (final / "student" / "model.safetensors").exists()
    assert (final / "heads").exists() == (config.task == "segment")
  assert (tmp_path / "report.html").stat().st_size > 10_000


def test_the_lines_that_split_caltech(tmp_path, monkeypatch):
  for name, count in (("001.ak47", 98), ("002.flag", 61)):
    (tmp_path / "256_ObjectCategories" / name).mkdir(parents=True)
    for i in range(count):
      place = tmp_path / "256_ObjectCategories" / name / f"{i:04}.jpg"
      place.write_bytes(b"")
  (place.parent / "RENAME2").write_bytes(b"")  # as there is one
  text = (ROOT / "docs" / "transfer.md").read_text()
  lines = re.search(r"<<'EOF'\n(.*256_Object.*?)EOF\n", text, re.DOTALL)
  monkeypatch.chdir(tmp_path)
  exec(lines[1], {})
  train, test = (
    folder.Source(load("caltech256")[part].dir) for part in ("data", "test")
  )
  assert (len(train), len(test)) == (120, 39)
  assert train.class_names == test.class_names == ("001.ak47", "002.flag")
  assert list(train.ids())[0] == "001.ak47/0000.jpg"
  assert list(test.ids())[-1] == "002.flag/0060.jpg"
