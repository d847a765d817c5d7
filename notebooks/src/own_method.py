# %% [markdown]
# # Your own method, in one cell
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/kd_jax/blob/main/notebooks/own_method.ipynb)
#
# A method says what the student learns from the teacher: loss terms over the
# networks' features. Everything else stays: data, training, checkpoints,
# report. Here you write one, train with it, and keep it as a file.

# %%
import importlib.util
import subprocess
import sys

REPOSITORY = "git+https://github.com/OWNER/kd_jax"  # put in the owner

if importlib.util.find_spec("kd_jax") is None:
  subprocess.run([sys.executable, "-m", "pip", "install", "-q", REPOSITORY])

# %% [markdown]
# ## The method
# Every image asks which others of the batch are like it. The teacher's answer
# is a softmax over similarities; the student shall give the same answer
# (in the spirit of CompRess, arXiv:2010.14713). The widths of the networks do
# not matter. This cell is all there is to write.

# %%
"""Neighbours: the student finds alike in a batch what the teacher does."""

import dataclasses

import jax
import jax.numpy as jnp

from kd_jax import interfaces
from kd_jax.types import Needs, Phase


@dataclasses.dataclass(frozen=True)
class Method(interfaces.Method):
  """Cross-entropy of two softmaxes over similarities.

  Attributes:
    terms: must be ('neighbours',).
    temperature: of the softmaxes.
  """

  terms: tuple[str, ...] = ("neighbours",)
  temperature: float = 0.1

  def phases(self):
    """One phase; the classifier, which no term reads, is not trained."""
    needs = Needs(student=("feature",), teacher=("feature",))
    frozen = ("student/head",)
    return (Phase("neighbours", self.losses, needs, frozen=frozen),)

  def losses(self, variables, taps, teacher, batch):
    """({term: loss}, new statistics of the method)."""
    student = self._answers(taps["feature"])
    target = jnp.exp(self._answers(teacher.taps["feature"]))
    return {"neighbours": -jnp.mean(jnp.sum(target * student, axis=1))}, {}

  def _answers(self, feature):
    """Log-probabilities of the others, (n, n)."""
    feature = feature - feature.mean(axis=0)
    norms = jnp.linalg.norm(feature, axis=1, keepdims=True)
    unit = feature / (norms + 1e-6)
    itself = 1e9 * jnp.eye(len(feature))
    return jax.nn.log_softmax(unit @ unit.T / self.temperature - itself)


# %% [markdown]
# ## The cell becomes a file
# The name of a file is the name of the method in a config; there is no
# registry. In a checkout the file is `kd_jax/methods/neighbours.py`. Here it
# goes into a folder of this notebook, where we let kd_jax look as well.

# %%
import linecache
from pathlib import Path

import kd_jax.methods


def cell_of(function):
  """The text of the cell that defines a function."""
  return "".join(linecache.getlines(function.__code__.co_filename))


Path("methods").mkdir(exist_ok=True)
Path("methods/neighbours.py").write_text(cell_of(Method.losses))
kd_jax.methods.__path__.append("methods")

# %% [markdown]
# ## Test it
# Two identities: the loss is smallest where the student equals the teacher,
# and does not depend on the scale of a feature. In a checkout these lines are
# `tests/methods/test_neighbours.py`.

# %%
from kd_jax.types import Teacher


def loss(student, target):
  """The term of two features."""
  taps = {"feature": target}
  found = Method().losses({}, {"feature": student}, Teacher(taps, None), None)
  return float(found[0]["neighbours"])


a = jax.random.normal(jax.random.key(0), (16, 8))
b = jax.random.normal(jax.random.key(1), (16, 8))
assert loss(a, a) < loss(b, a)
assert abs(loss(3 * a, a) - loss(a, a)) < 1e-4
print("equal", round(loss(a, a), 3), "different", round(loss(b, a), 3))

# %% [markdown]
# ## Train with it
# A teacher for the digits 0-4, and scenes without labels for the student:
# digits on photographs, from `configs/suite.py:demo`. The config names the
# method, and gives its term a weight. The last student learns by KDEP.

# %%
from ml_collections import ConfigDict

from kd_jax import config as configs
from kd_jax.tasks import pretrain

STEPS = 400
RUNS = configs.load("configs/suite.py:demo").runs


def config_of(name):
  """The config of that name, with few steps."""
  config = RUNS[name].copy_and_resolve_references().unlock()
  config.steps, config.optim.warmup = STEPS, STEPS // 20
  config.data.length = 4000
  config.eval.pictures = 0
  return config


teacher = pretrain.run(config_of("teacher"), "runs/teacher")

# %%
kdep = config_of("kdep")
kdep.teacher.weights = "runs/teacher/student"
mine = kdep.copy_and_resolve_references()
mine.method = ConfigDict({"name": "neighbours", "temperature": 0.1})
mine.losses = ConfigDict({"neighbours": 1.0})

STUDENTS = {
  "teacher": teacher,
  "neighbours": pretrain.run(mine, "runs/neighbours"),
  "kdep": pretrain.run(kdep, "runs/kdep"),
}

# %% [markdown]
# ## Is it any good?
# A linear classifier on frozen features, from 20 labelled scenes of each of the
# ten digits. One draw of the labels: a few points are chance.

# %%
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kd_jax.data.sources import scenes


def scored(model, variables):
  """Share of test scenes that are named rightly."""
  parts = []
  for split, length in (("train", 200), ("test", 1000)):
    records = list(scenes.Source(split=split, size=24, length=length, seed=7))
    images = np.stack([r["image"] for r in records]).astype(np.float32) / 255
    taps = jax.jit(lambda v, x: model.apply(v, x, train=False))
    rows = np.asarray(taps(variables, images)["pooled"])
    parts.append((rows, np.array([r["label"] for r in records])))
  linear = LogisticRegression(C=0.1, max_iter=2000)
  probe = make_pipeline(StandardScaler(), linear).fit(*parts[0])
  return probe.score(*parts[1])


student = STUDENTS["kdep"].student
start = jax.jit(student.init)(
  jax.random.key(0), np.zeros((1, 24, 24, 3), np.float32)
)
RESULTS = {"chance": 0.1, "untrained": scored(student, start)}
for name, run in STUDENTS.items():
  RESULTS[name] = scored(run.student, run.variables)
for name, share in RESULTS.items():
  print(f"{name:<12} {share:.3f}")

# %%
import matplotlib.pyplot as plt

plt.figure(figsize=(5, 2.5), dpi=80)
plt.barh(list(RESULTS), list(RESULTS.values()))
plt.xlabel("accuracy from 20 labels per digit")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## Keep it
# In a checkout of kd_jax: move `methods/neighbours.py` to `kd_jax/methods/`,
# the test to `tests/methods/`, and write a config, for instance
# `configs/neighbours_r18.py`:
#
# ```python
# from ml_collections import ConfigDict
#
# from configs import kdep_r18
#
#
# def get_config(variant=""):
#   config = kdep_r18.get_config(variant).unlock()
#   config.method = ConfigDict({"name": "neighbours"})
#   config.losses = ConfigDict({"neighbours": 1.0})
#   return config.lock()
# ```
#
# `python -m kd_jax.main --config configs/neighbours_r18.py:smoke` tries it in
# seconds. `docs/extend.md` says what else a method may have: parameters of its
# own, phases, statistics of the teacher; and how teachers and data are added.
