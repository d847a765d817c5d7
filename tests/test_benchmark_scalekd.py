"""The benchmarks of ScaleKD, with tiny networks; nothing is timed."""

from __future__ import annotations

import pytest

from benchmarks import scalekd, scalekd_step
from configs.common_scalekd import TINY_SWIN
from configs.scalekd_r50 import TINY
from kd_jax.build.experiment import experiment


@pytest.fixture
def tiny(monkeypatch):
  whole = scalekd_step.common

  def common(args):
    config = whole(args)
    config.teacher.overrides.update(TINY_SWIN)
    config.student.overrides.update(TINY)
    return config

  monkeypatch.setattr(scalekd_step, "common", common)


FLAGS = ["--batch", "2", "--size", "64", "--rounds", "2", "--heads", "2", "2"]


@pytest.mark.slow
def test_step_and_memory(tiny, monkeypatch, capsys):
  """The step of ScaleKD itself takes too long to compile here."""
  monkeypatch.setattr(scalekd_step, "REMAT", ())
  seen, measure = [], scalekd_step.measure

  def spy(contenders, *rest):
    seen.extend(contenders.values())
    return measure(contenders, *rest)

  monkeypatch.setattr(scalekd_step, "measure", spy)
  scalekd_step.main(FLAGS)
  first, _, line = capsys.readouterr().out.splitlines()
  assert first.startswith("swin_tiny_patch4_window7_224 -> resnet18, batch 2")
  name, milliseconds, ratio, compiled, estimated, *_ = line.split()
  assert (name, ratio) == ("KDEP", "1.00")
  assert min(map(float, (milliseconds, compiled, estimated))) >= 0
  # Too little to be seen in the table.
  (contender,) = seen
  assert contender.compiled > 0 and contender.run(1) > 0
  assert min(contender.estimated.values()) > 0


def test_the_pair_of_the_step(tiny, tmp_path):
  args = scalekd_step.arguments(FLAGS)
  for remat in scalekd_step.REMAT:
    config = scalekd_step.scalekd(args, remat)
    parts = experiment(config, tmp_path)
    assert parts.method.remat == remat
    assert set(parts.method.terms) == set(scalekd.WEIGHTS)
    assert [config.losses[k] for k in scalekd.WEIGHTS] == [
      *scalekd.WEIGHTS.values()
    ]


def test_contenders_share_networks_data_and_steps(tmp_path):
  found = scalekd.contenders(8)
  terms = {}
  for name, config in found.items():
    config.teacher.source = "random"
    config.teacher.weights = ""
    config.teacher.overrides.num_classes = 5
    parts = experiment(config, tmp_path)
    terms[name] = set(parts.method.terms)
    assert [stretch.stop for stretch in parts.stretches] == [8]
  features = set(scalekd.WEIGHTS)
  assert terms["ScaleKD"] == features
  assert terms["ScaleKD + logits"] == features | {"kd"}
  assert terms["KDEP"] == {"feature"} and terms["logits (Hinton)"] == {"kl"}
  both = {f"scalekd/{term}" for term in features} | {"kdep/feature"}
  assert terms["ScaleKD + KDEP"] == both
  for part in ("data", "preprocess", "optim", "batch_size", "seed"):
    values = {str(config[part]) for config in found.values()}
    assert len(values) == 1, part
