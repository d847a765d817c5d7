"""Every pair of ScaleKD's configs, small: gradients, teacher, export."""

import pathlib
import shutil

import jax
import numpy as np
import optax
import pytest

import kd_jax
import runs
from kd_jax import config as config_lib
from kd_jax import trees
from kd_jax.build.experiment import experiment
from kd_jax.methods import scalekd
from kd_jax.report import metrics
from kd_jax.tasks import pretrain
from kd_jax.train import loop, optim
from kd_jax.train import step as step_lib
from kd_jax.types import Batch

ROOT = pathlib.Path(__file__).parents[1]
# Others have the same small networks as one of these.
PAIRS = (
  "r50:smoke",
  "vit_b:smoke_beit",
  "eva02_s:smoke",
  "kdep_r50:smoke",
)
# A CNN that learns from maps, a transformer that learns from tokens.
QUICK = ("r50:smoke", "vit_b:smoke_beit")
SLOW = [
  pytest.param(p, marks=pytest.mark.slow) for p in PAIRS if p not in QUICK
]


def load(pair, *overrides):
  name, _, variant = pair.partition(":")
  path = ROOT / "configs" / f"scalekd_{name}.py"
  return config_lib.load(f"{path}:{variant}", overrides)


def drawn(shapes):
  """Weights without a compilation, none of them zero."""
  rng = np.random.default_rng(0)

  def draw(path, spec):
    noise = 0.1 * rng.standard_normal(spec.shape, np.float32)
    return noise + np.float32(path[-1].key in ("scale", "var"))

  return jax.tree_util.tree_map_with_path(draw, shapes)


class Trained:
  """A pair after one step."""

  def __init__(self, pair, folder):
    config = load(pair)
    self.parts = parts = experiment(config, folder)
    self.teacher = trees.fingerprint(parts.teaching.variables)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    key = jax.random.key(0)
    student = drawn(jax.eval_shape(parts.student.init, key, image))
    method = drawn(
      jax.eval_shape(lambda k: parts.method.init(k, *parts.specs), key)
    )
    own = {k: v for k, v in method.items() if k != "params"}
    params = {"student": student["params"], "method": method["params"]}
    stats = {"student": student.get("batch_stats", {}), "method": own}
    phase = parts.stretches[0].phase
    tx = optax.sgd(0.1)  # a warm-up may be too slow to be seen
    leaves = step_lib.trainable(params, phase)
    self.before = trees.flatten(params)
    state = loop.placed_state(
      params, stats, tx.init(leaves), key, parts.settings
    )
    self.frozen = {
      "teacher": parts.teaching.variables,
      "artifact": artifact(parts),
    }
    step = step_lib.make_train_step(
      parts.student, parts.teaching.source, phase, tx, parts.settings
    )
    # In the order of the leaves, as `has_grad` has them.
    self.paths = list(step_lib.trainable(state.params, phase))
    self.state, self.found = step(state, self.frozen, batch())

  def variables(self):
    return {
      "params": jax.tree.map(np.asarray, self.state.params["student"]),
      "batch_stats": jax.tree.map(np.asarray, self.state.stats["student"]),
    }


def artifact(parts):
  tap = parts.method.artifact_tap
  if tap is None:
    return {}
  width, dim = (specs[tap].shape[-1] for specs in parts.specs)
  rng = np.random.default_rng(1)
  size = min(width, dim)
  basis = np.linalg.qr(rng.normal(size=(dim, dim)))[0][:, :size]
  ones = np.ones(dim, np.float32)
  return {
    "mean": 0 * ones,
    "basis": basis.astype(np.float32),
    "singular_values": ones[:size],
    "channel_variance": ones,
  }


def batch():
  rng = np.random.default_rng(2)
  image = rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
  return Batch(image, np.arange(8, dtype=np.int32), np.ones(8, np.float32))


@pytest.fixture(scope="module", params=[*QUICK, *SLOW])
def trained(request, tmp_path_factory):
  return Trained(request.param, tmp_path_factory.mktemp("pair"))


def test_a_pair_trains_student_and_projectors_alone(trained, tmp_path):
  had = np.asarray(trained.found["has_grad"])
  assert had.all(), [
    p for p, ok in zip(trained.paths, had, strict=True) if not ok
  ]
  after = trees.flatten(trained.state.params)
  assert {path.split("/")[0] for path in after} == {"student", "method"}
  moved = {
    path
    for path, value in after.items()
    if not np.array_equal(value, trained.before[path])
  }
  assert moved == set(trained.paths)
  assert trees.fingerprint(trained.frozen["teacher"]) == trained.teacher
  # The classifier of an unlabelled run, and nothing else, stays as it was.
  still = set(after) - moved
  assert not still or {path.split("/")[1] for path in still} == {"head"}


def test_export_holds_the_student_alone(trained):
  student, variables = trained.parts.student, trained.variables()
  tensors = kd_jax.export_timm(student, variables)
  assert sum(v.size for v in tensors.values()) == sum(
    leaf.size for leaf in jax.tree.leaves(variables)
  ) + sum("num_batches_tracked" in name for name in tensors)
  assert not any("projector" in name or "proxy" in name for name in tensors)


def test_the_authors_counts_of_projector_parameters():
  # Counted in the authors' code, without the biases that change nothing.
  shapes = {
    (2048, 1024, (16, 24), 5.0): 176,
    (1024, 512, (16, 24), 5.0): 97,
  }
  for (last, penultimate, heads, sharpness), millions in shapes.items():
    method = scalekd.Method(heads=heads, sharpness=sharpness)
    student = {"stage3": spec(14, penultimate), "stage4": spec(7, last)}
    teacher = {"stage3": spec(14, 768), "final": spec(7, 1536)}
    found = jax.eval_shape(
      lambda key, m=method, s=student, t=teacher: m.init(key, s, t),
      jax.random.key(0),
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(found["params"]))
    assert round(count / 1e6) == millions


def spec(side, width):
  return jax.ShapeDtypeStruct((1, side, side, width), np.float32)


def test_the_recipes():
  config = load("r50")
  assert (config.batch_size, config.steps) == (2048, 300 * 625)
  rate = optim.Optim(**config.optim.to_dict()).rate(config.steps)
  rates = [float(rate(step)) for step in (0, 5 * 625, config.steps)]
  np.testing.assert_allclose(rates, [1.25e-3, 5e-3, 0], atol=1e-9)
  weights = config.losses
  assert (weights.bce, weights.ce, weights.kd) == (0.5, 0.0, 0.5)
  assert (weights.proxy, weights.final_alt) == (0.08, 0.06)
  old = load("r50:trad")
  rate = optim.Optim(**old.optim.to_dict()).rate(old.steps)
  epoch = 1_281_167 // 256
  rates = [float(rate(e * epoch)) for e in (0, 29.9, 30, 60, 90)]
  np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 1e-3, 1e-4], rtol=1e-5)
  assert old.student.name == "resnet50" and not old.preprocess.rand_ops
  beit = load("vit_b:beit")
  assert beit.method.resume == "block22" and beit.losses.proxy == 0.016
  assert (
    load("swin_t").mix.smoothing == 0.1 and load("mixer_s").mix.smoothing == 0
  )


@pytest.mark.slow
def test_a_run_goes_on_with_its_projectors(tmp_path):
  """Beside KDEP, whose basis the run goes on with, too."""
  terms = [f"losses.scalekd/{x}=0" for x in ("proxy_alt", "final_alt")]
  config = load("kdep_r50:smoke", *terms, "ema_decay=0.9")
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  first = pretrain.run(config, whole)
  shutil.copytree(whole, cut)
  shutil.rmtree(cut / "checkpoints" / "4")
  again = pretrain.run(config, cut)
  states = [runs.state(folder, 4) for folder in (whole, cut)]
  assert any("batch_stats" in name and "proxy" in name for name in states[0])
  assert any("ema" in name and "final" in name for name in states[0])
  assert set(states[0]) == set(states[1])
  for name, value in states[0].items():
    np.testing.assert_array_equal(value, states[1][name])
  term = "loss/scalekd/proxy"
  lines = [line for line in metrics.read(cut) if term in line]
  assert lines[-1][term] == first.metrics[term]
  model, variables = kd_jax.load_pretrained("resnet50d", cut / "student")
  for got, want in zip(
    jax.tree.leaves(variables), jax.tree.leaves(again.variables), strict=True
  ):
    np.testing.assert_array_equal(got, want)
