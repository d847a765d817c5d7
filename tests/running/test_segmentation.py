"""Segmentations from their plan to their results, on a few scenes."""

import json

import jax
import numpy as np
import pytest

import runs
from kd_jax import config as config_lib
from kd_jax import load_pretrained, trees
from kd_jax.build import segment as build
from kd_jax.report import metrics
from kd_jax.running import results, segment
from kd_jax.transfer import files
from kd_jax.transfer.judge import on_devices

FIELDS = ("losses.aux=0.4", "optim.head_lr=10.0", "eval.every=3")
AUX = {"name": "fcn", "tap": "stage3", "channels": 4}


def planned(where, *fields, aux=None):
  config = config_lib.load(f"{runs.TRANSFER}:segment", list(fields))
  if aux:
    with config.unlocked():
      config.aux.update(aux)
  return build.plan(config, where)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  """(plan, folder, results) of one run with an auxiliary head."""
  where = tmp_path_factory.mktemp("segmented")
  plan = planned(where, *FIELDS, aux=AUX)
  return plan, where, segment.conclude(plan, where)


def test_results_are_those_of_the_run(done):
  plan, where, found = done
  assert json.loads((where / results.FILE).read_text()) == found
  folder = where / "trials" / "final_lr0.03_seed0"
  told = json.loads((folder / "result.json").read_text())["figures"]
  assert {k: [v] for k, v in told.items()} == found["figures"]
  assert found["figure"] == "miou" and 0 < found["figures"]["miou"][0] < 1
  assert (found["train_images"], found["test_images"]) == (24, 18)
  assert found["evals"] == {} and found["search"] == {}
  assert results.rows_of(found)[1][0][-1] == "one rate, last weights"
  # Three evaluations, the last one of weights from the host.
  assert plan.judge._count._cache_size() == 1
  step = plan.experiment.programs["step from 0"]
  assert step._cache_size() == 1
  for name in ("classes", "masks"):
    assert (folder / "pictures" / f"{name}.png").stat().st_size > 1000


def test_a_saved_network_is_the_one_that_was_judged(done):
  plan, where, found = done
  folder = where / "trials" / "final_lr0.03_seed0"
  model, variables = files.load(folder)
  assert model.head == plan.experiment.student.head.clone(dtype=None)
  assert model.aux is not None and model.num_classes == 3
  again = plan.judge.figures(variables, plan.test)
  assert {k: [v] for k, v in again.items()} == found["figures"]
  image = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
  want, got = (
    jax.jit(net.apply)(variables, image)
    for net in (plan.experiment.student, model)
  )
  for tap in ("logits", "aux_logits"):
    np.testing.assert_array_equal(got[tap], want[tap])
    assert np.ptp(got[tap]) > 0


def test_saving_again_gives_the_same_files(done, tmp_path):
  _, where, _ = done
  folder = where / "trials" / "final_lr0.03_seed0"
  model, variables = files.load(folder)
  names = ("background", "3", "8")
  files.save(model, variables, tmp_path, name="resnet18", classes=names)
  for name in ("heads/config.json", "heads/model.safetensors"):
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
  _, bare = load_pretrained("resnet18", tmp_path / "student")
  flat = trees.flatten(bare)
  assert len(flat) == 60
  for path, array in flat.items():
    kind, _, rest = path.partition("/")
    mine = trees.flatten(variables[kind]["backbone"])[rest]
    np.testing.assert_array_equal(array, mine, err_msg=path)


def test_files_that_are_missing_or_damaged_are_named(done, tmp_path):
  _, where, _ = done
  with pytest.raises(ValueError, match="holds no segmentation network.*trials"):
    files.load(tmp_path)
  model, variables = files.load(where / "trials" / "final_lr0.03_seed0")
  files.save(model, variables, tmp_path, name="resnet18", classes="abc")
  (tmp_path / "heads" / "config.json").write_text("{}")
  with pytest.raises(ValueError, match="no segmentation network.*'student'"):
    files.load(tmp_path)
  files.save(model, variables, tmp_path, name="resnet18", classes="abc")
  path = tmp_path / "heads" / "model.safetensors"
  path.write_bytes(path.read_bytes()[:-40])
  with pytest.raises(ValueError, match="holds no segmentation network"):
    files.load(tmp_path)


@pytest.mark.slow
def test_heads_alone_leave_the_backbone_bit_for_bit(done, tmp_path):
  _, where, _ = done
  source = where / "trials" / "final_lr0.03_seed0"
  fields = ("transfer.trains=head", f"init_from={source}")
  segment.conclude(planned(tmp_path, *fields), tmp_path)
  (_, given), (model, kept) = (
    files.load(folder)
    for folder in (source, tmp_path / "trials" / "final_lr0.03_seed0")
  )
  assert model.aux is None
  for kind in ("params", "batch_stats"):
    flat = trees.flatten(kept[kind]["backbone"])
    want = trees.flatten(given[kind]["backbone"])
    assert len(flat) > 20 and set(flat) == set(want)
    for path, array in flat.items():
      np.testing.assert_array_equal(array, want[path], err_msg=path)


@pytest.mark.slow
def test_a_transformer_goes_on_where_it_was_left(tmp_path):
  """It has no batch statistics, which its heads have."""
  vit = {"depth": 4, "embed_dim": 16, "num_heads": 2, "patch_size": 4}
  vit["input_size"] = (3, 16, 16)

  def plan(where, **changes):
    config = config_lib.load(f"{runs.TRANSFER}:segment")
    with config.unlocked():
      config.student.name = "vit_tiny_patch16_224"
      config.student.overrides = vit
      config.update(changes)
    return build.plan(config, where)

  segment.conclude(plan(tmp_path / "a"), tmp_path / "a")
  source = tmp_path / "a" / "trials" / "final_lr0.03_seed0"
  wanted = plan(tmp_path / "b", init_from=str(source))
  segment.conclude(wanted, tmp_path / "b")
  begun = [
    metrics.read(tmp_path / run / "trials" / "final_lr0.03_seed0")[0]["loss/ce"]
    for run in "ab"
  ]
  assert begun[0] != begun[1]
  step = wanted.experiment.programs["step from 0"]
  assert step._cache_size() == 1


def test_arrays_on_the_devices_stay_where_they_are(done):
  mesh = done[0].experiment.mesh
  placed = on_devices({"a": np.ones(3), "b": jax.numpy.ones(2)}, mesh)
  assert on_devices(placed, mesh)["a"] is placed["a"]
  assert isinstance(placed["a"], jax.Array)
