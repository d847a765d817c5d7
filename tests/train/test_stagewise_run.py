"""A whole stage-wise run: what moves when, a kill in a stage, its export."""

import json
import pathlib

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import kd_jax
import runs
from kd_jax.convert import rules
from kd_jax.report import metrics

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "tiny_stagewise.py"
# The phases of that config: where they end, what they train.
ENDS = {"stage1": 3, "stage2": 6, "stage4": 9, "head": 12}
GROUPS = {
  "stage1": ("stem", "stage1"),
  "stage2": ("stage2",),
  "stage4": ("stage3", "stage4"),
  "head": ("head",),
}
MIDDLE = {"stage1": 2, "stage2": 4, "stage4": 8, "head": 10}
NAMES = list(ENDS)


class Story:
  """A quiet run."""

  def __init__(self, folder):
    self.quiet = folder / "quiet"
    self.fields = (f"teacher.weights={runs.save_teacher(folder / 'teacher')}",)
    self.said = runs.here(self.quiet, *self.fields, config=CONFIG)
    steps = (*ENDS.values(), *MIDDLE.values())
    self.states = {step: runs.state(self.quiet, step) for step in steps}


@pytest.fixture(scope="module")
def story(tmp_path_factory):
  return Story(tmp_path_factory.mktemp("stagewise"))


def of_student(state, groups):
  """{path: array} of weights and batch statistics."""
  kinds = [f"['{kind}']['student']" for kind in ("params", "stats")]
  prefixes = tuple(f"{kind}['{group}']" for kind in kinds for group in groups)
  return {k: v for k, v in state.items() if k.startswith(prefixes)}


def moved(a, b):
  assert set(a) == set(b) and a
  return {name for name in a if not np.array_equal(a[name], b[name])}


@pytest.mark.parametrize("phase", NAMES[1:])
def test_a_phase_moves_its_own_stages_and_nothing_else(story, phase):
  """Weights and batch statistics of the others keep every bit."""
  before = story.states[ENDS[NAMES[NAMES.index(phase) - 1]]]
  for step in (MIDDLE[phase], ENDS[phase]):
    after = story.states[step]
    for other in set(NAMES) - {phase}:
      pair = (of_student(s, GROUPS[other]) for s in (before, after))
      assert not moved(*pair)
  own = [of_student(s, GROUPS[phase]) for s in (before, after)]
  weights = {k for k in own[0] if k.startswith("['params']")}
  assert weights <= moved(*own)


def test_the_first_phase_trains_the_stem_too(story):
  before, after = story.states[MIDDLE["stage1"]], story.states[ENDS["stage1"]]
  for group in GROUPS["stage1"]:
    pair = [of_student(s, (group,)) for s in (before, after)]
    assert {k for k in pair[0] if "kernel" in k} <= moved(*pair)
  for other in NAMES[1:]:
    assert not moved(*(of_student(s, GROUPS[other]) for s in (before, after)))


@pytest.mark.parametrize("phase", NAMES)
def test_the_optimizer_holds_what_the_phase_trains(story, phase):
  """So nothing else can decay; of judged phases the best weights are kept."""
  state = story.states[MIDDLE[phase]]
  opt = [k for k in state if k.startswith("['opt']") and "student/" in k]
  found = {k.split("student/")[1].split("/")[0] for k in opt}
  assert found == set(GROUPS[phase])
  assert any(k.startswith("['best']") for k in state) == (phase != "head")
  assert not [k for k in story.states[ENDS[phase]] if k.startswith("['best']")]


def test_adapters_stay_behind(story):
  """They are in the state of the run, not in the exported student."""
  adapter = "['params']['method']['stage1']['kernel']"
  assert story.states[12][adapter].shape == (4, 8)
  source = story.quiet / "student"
  saved = safetensors_numpy.load_file(source / "model.safetensors")
  saved = {k for k in saved if not k.endswith("num_batches_tracked")}
  fields = json.loads((source / "config.json").read_text())["model_args"]
  fields = {
    k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
  }
  plain = kd_jax.create_model("resnet18", num_classes=10, **fields)
  assert saved == set(rules.entries(plain))


@pytest.mark.slow
def test_a_kill_in_a_stage_changes_no_bit(story, tmp_path):
  killed = tmp_path / "killed"
  run = {"config": CONFIG}
  runs.kill(lambda w: 8 in runs.checkpoints(w), killed, *story.fields, **run)
  saved = max(runs.checkpoints(killed))
  said = runs.here(killed, *story.fields, **run)
  assert 6 < saved < 12
  assert f"continuing after step {saved}" in said
  got = runs.state(killed, 12)
  assert not moved(story.states[12], got)
  logs = [
    [{k: v for k, v in x.items() if k != "images_per_s"} for x in lines]
    for lines in map(metrics.read, (story.quiet, killed))
  ]
  assert logs[0] == logs[1]


def test_the_best_evaluation_of_a_stage_is_handed_on(story):
  """What the phase is judged by stays at its lowest ever after."""
  lines, start = metrics.read(story.quiet), 0
  for name, stop in list(ENDS.items())[:-1]:
    figures = [
      (x["step"], x[f"eval/{name}"]) for x in lines if f"eval/{name}" in x
    ]
    inside = [value for step, value in figures if start < step <= stop]
    later = {value for step, value in figures if step > stop}
    assert len(inside) >= 2 and later == {min(inside)}
    start = stop


def test_every_phase_logs_its_own_term_and_its_place(story):
  lines = metrics.read(story.quiet)
  terms = [k for x in lines for k in x if k.startswith("loss/")]
  terms = [k.removeprefix("loss/") for k in terms if k != "loss/total"]
  assert terms == [
    t for t in ("stage1", "stage2", "stage4", "ce") for _ in "123"
  ]
  for name, stop in ENDS.items():
    assert f"phase {name} ends after step {stop}: " in story.said
  errors = [x["eval/stage1_error"] for x in lines if "eval/stage1_error" in x]
  assert min(errors) > 0
