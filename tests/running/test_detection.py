"""Detections from their plan to their results, on a few scenes."""

import collections
import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

import runs
from kd_jax import config as config_lib
from kd_jax import load_pretrained, trees
from kd_jax.build import detect as build
from kd_jax.build import images
from kd_jax.data.detection import Detection
from kd_jax.report import metrics
from kd_jax.running import detect, results
from kd_jax.transfer.detection import files
from kd_jax.transfer.plan import Trial


def planned(where, *fields):
  config = config_lib.load(f"{runs.TRANSFER}:detect", list(fields))
  return build.plan(config, where)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  """(plan, folder, results) of one run with masks."""
  where = tmp_path_factory.mktemp("detected")
  plan = planned(where, "eval.every=3")
  return plan, where, detect.conclude(plan, where)


def trial(where):
  (folder,) = (where / "trials").glob("final_*")
  return folder


@pytest.mark.slow
def test_results_are_those_of_the_run(done):
  plan, where, found = done
  assert json.loads((where / results.FILE).read_text()) == found
  folder = trial(where)
  told = json.loads((folder / "result.json").read_text())["figures"]
  assert {k: [v] for k, v in told.items()} == found["figures"]
  assert found["figure"] == "ap" and "mask_ap50" in found["figures"]
  terms = {"rpn_class", "rpn_box", "class", "box", "mask"}
  losses = [k for k in metrics.read(folder)[0] if k.startswith("loss/")]
  assert {f"loss/{name}" for name in (*terms, "total")} == set(losses)
  for name in ("precision_boxes", "precision_masks", "worst_images"):
    assert (folder / "pictures" / f"{name}.png").stat().st_size > 1000
  said = json.loads((folder / "detections.json").read_text())
  assert said and {"bbox", "score", "segmentation"} <= set(said[0])


@pytest.mark.slow
def test_nothing_is_compiled_twice(done):
  plan, _, _ = done
  # Three evaluations, the last one of weights from the host.
  assert plan.judge._answer._cache_size() == 1
  assert plan.experiment.programs["step from 0"]._cache_size() == 1


@pytest.mark.slow
def test_a_saved_detector_is_the_one_that_was_judged(done):
  plan, where, found = done
  model, variables, about = files.load(trial(where))
  assert about["classes"] == ["3", "8"] and about["canvas"] == [32, 32]
  assert model.form == plan.experiment.student.form
  again = plan.judge.figures(variables, plan.test)
  assert {k: [v] for k, v in again.items()} == found["figures"]
  # Figures of so short a run may all be 0; what it says is not.
  said = plan.judge.said(variables, plan.test)
  written = json.loads((trial(where) / "detections.json").read_text())
  np.testing.assert_array_equal(
    said.scores, np.float32([each["score"] for each in written])
  )
  assert len(said.scores) > 10 and np.ptp(said.scores) > 0
  # The last statistics are re-estimated, not running averages.
  kept = trees.flatten(variables["batch_stats"])
  assert len(kept) > 20 and all(np.isfinite(v).all() for v in kept.values())


@pytest.mark.slow
def test_saving_again_gives_the_same_files(done, tmp_path):
  _, where, _ = done
  model, variables, about = files.load(trial(where))
  files.save(
    model,
    variables,
    tmp_path,
    name="resnet18",
    classes=about["classes"],
    canvas=about["canvas"],
  )
  for name in ("heads/config.json", "heads/model.safetensors"):
    mine, theirs = (f / name for f in (tmp_path, trial(where)))
    assert mine.read_bytes() == theirs.read_bytes(), name
  _, bare = load_pretrained("resnet18", tmp_path / "student")
  assert len(trees.flatten(bare)) == 60


@pytest.mark.slow
def test_the_host_is_not_asked_inside_a_step_or_an_answer(done, tmp_path):
  """All calls of a whole run, by the programs of one that has compiled them."""
  plan, _, found = done
  asked = collections.Counter()

  def guarded(name, call):
    def run(*given):
      asked[name] += 1
      with jax.transfer_guard("disallow"):
        return call(*given)

    return run

  experiment, judge = plan.experiment, dataclasses.replace(plan.judge)
  programs = {
    name: guarded(name, call) if name.startswith("step") else call
    for name, call in experiment.programs.items()
  }
  vars(judge)["_answer"] = guarded("answer", plan.judge._answer)
  experiment = dataclasses.replace(experiment, programs=programs)
  again = dataclasses.replace(plan, experiment=experiment, judge=judge)
  figures = detect.conclude(again, tmp_path)["figures"]
  assert figures == found["figures"]
  assert asked["step from 0"] == 6 and asked["answer"] >= 6


@pytest.mark.slow
def test_files_that_are_missing_or_damaged_are_named(done, tmp_path):
  _, where, _ = done
  with pytest.raises(ValueError, match="holds no detector.*trials"):
    files.load(tmp_path)
  config = trial(where) / "heads" / "config.json"
  broken = tmp_path / "heads" / "config.json"
  broken.parent.mkdir()
  broken.write_text(config.read_text().replace('"detector"', '"other"'))
  with pytest.raises(ValueError, match="no detector.*'detector'"):
    files.load(tmp_path)


@pytest.mark.parametrize(
  ("fields", "match"),
  [
    (("data.labels=False",), "config.data has no boxes"),
    (("test.classes=(1,2)",), "or other names"),
    (("losses.mask=0.0",), "learns all of"),
    (("eval.figure=map",), "can be one of"),
    (("eval.rules=pascal",), "judged by one of"),
    (("mix.mixup=0.2",), "boxes are not mixed"),
    (("transfer.evals=('knn',)",), "which detection has not"),
    (("detector.pools=3",), "no field 'pools'"),
    (("detector.name=fnp",), "fnp"),
    (("eval.precise_batches=0",), "precise_batches"),
    (("detector.name=simple", "losses.mask=0.0"), "plain transformer"),
  ],
)
def test_what_cannot_work_is_named_before_it_runs(tmp_path, fields, match):
  with pytest.raises(ValueError, match=match):
    planned(tmp_path, *fields)


def labelled_folder(folder, count):
  """Photographs of both orientations with COCO's JSON; some have no object."""
  photo = load_sample_images().images[0]
  folder.mkdir()
  found = {"images": [], "annotations": [], "categories": []}
  for name in ("3", "8"):
    found["categories"].append(
      {"id": len(found["categories"]) + 1, "name": name}
    )
  for i in range(count):
    height, width = ((40, 56), (56, 40), (44, 44))[i % 3]
    cut = photo[5 * i : 5 * i + height, 7 * i : 7 * i + width].copy()
    left, top = 4 + i % 7, 6 + i % 5
    cut[top : top + 20, left : left + 16] = (230, 30, 30)
    Image.fromarray(cut).save(folder / f"{i}.png")
    sizes = {"height": height, "width": width}
    found["images"].append({"id": i, "file_name": f"{i}.png", **sizes})
    if i % 6 == 5:
      continue
    found["annotations"].append(
      {
        "id": i + 1,
        "image_id": i,
        "category_id": 1 + i % 2,
        "bbox": [left, top, 16, 20],
        "area": 320,
        "iscrowd": 0,
        "segmentation": [
          [left, top, left + 16, top, left + 16, top + 20, left, top + 20]
        ],
      }
    )
  path = folder.with_suffix(".json")
  path.write_text(json.dumps(found))
  return {
    "name": "coco",
    "images": str(folder),
    "annotations": str(path),
    "masks": True,
    "keep_empty": True,
  }


def test_too_many_objects_show_before_the_first_step(tmp_path, caplog):
  config = config_lib.load(f"{runs.TRANSFER}:detect")
  train, test = (labelled_folder(tmp_path / n, 16) for n in ("train", "test"))
  path = tmp_path / "train.json"
  found = json.loads(path.read_text())
  found["annotations"] += [
    {**found["annotations"][3], "id": 100 + i} for i in range(3)
  ]
  # A crowd needs no room.
  found["annotations"].append({**found["annotations"][4], "id": 99})
  found["annotations"][-1]["iscrowd"] = 1
  path.write_text(json.dumps(found))
  with config.unlocked():
    config.data, config.test = train, test
    config.transfer.shots = 0
  match = (
    r"^1 of 16 images have more than preprocess.max_objects=2 objects, the most"
    r" .*/train/3.png with 4; set --config.preprocess.max_objects=4, or .*drop"
  )
  with pytest.raises(ValueError, match=match) as error:
    build.plan(config, tmp_path / "run")
  assert "\n" not in str(error.value)
  source = images.source(train)
  for fields in ({"max_objects": 4}, {"max_objects": 2, "min_side": 1.0}):
    build._check_counts(source, Detection(**fields))
  assert not caplog.records
  build._check_counts(source, Detection(max_objects=2, too_many="drop"))
  (record,) = caplog.records
  said = "3.png with 4: the smallest, 2 in all, are not learnt"
  assert record.message.endswith(said)


@pytest.mark.slow
def test_a_program_per_canvas_and_images_without_objects(tmp_path):
  config = config_lib.load(f"{runs.TRANSFER}:detect")
  with config.unlocked():
    config.data = labelled_folder(tmp_path / "train", 36)
    config.test = labelled_folder(tmp_path / "test", 9)
    config.transfer.shots, config.steps, config.batch_size = 0, 12, 4
    config.detector.norm = "train"
    config.preprocess.update(
      {"short": (20, 24, 32), "long": 48, "buckets": 2, "test_long": 48}
    )
  plan = build.plan(config, tmp_path)
  views = plan.experiment.inputs.views
  canvases = {s for c in views.canvases() for s in (c, c[::-1])}
  assert len(canvases) == 4
  where = tmp_path / "run"
  found = detect.conclude(plan, where)
  with plan.of(Trial(0.02, 0)).inputs.batches() as stream:
    seen = [next(stream) for _ in range(12)]
  shapes = {batch.image.shape[1:3] for batch in seen}
  assert shapes <= canvases and len(shapes) >= 3
  empty = [(batch.label.classes < 0).all(1).any() for batch in seen]
  assert any(empty)
  step = plan.experiment.programs["step from 0"]
  assert step._cache_size() == len(shapes)
  # Landscape and portrait.
  assert plan.judge._answer._cache_size() == 2
  assert found["test_images"] == 9 and "mask_ap" in found["figures"]
