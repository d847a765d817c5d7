"""The race with two teachers: each knows five digits, the student needs ten.

The networks are those of `many_teachers`, the recipe that of the race. What
learns from both: one joint target (the joint SVD, what the others are compared
with), a linear head on KDEP's feature for each, and the methods that were made
for several teachers.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from benchmarks import _racers as field
from benchmarks import many_teachers

NAME = "teachers"
HEAD = 32  # channels in heads: networks are narrower than in the race of one
STEPS = 400  # of the teachers
_PLAIN = {"name": "kdep", "temperature": 1.0, "power": 1.0}


def racers() -> dict[str, field.Racer]:
  """All of them; a term's weight is that of each teacher's."""
  heads = {**_PLAIN, "align": {"name": "phi_s"}}
  joint = {**_PLAIN, "align": {"name": "joint_svd"}}
  return {
    "joint_svd": field.Racer("joint SVD", joint, {"feature": 1.0}),
    "heads": field.Racer("KDEP, head each, PHI-S", heads, {"feature": 1.0}),
    **field.many(HEAD),
  }


def teachers(small: bool) -> dict[str, ConfigDict]:
  """Pre-training of both, with labels."""
  steps = 4 if small else STEPS
  return {n: many_teachers.taught(n, steps) for n in many_teachers.WIDTHS}


def contest(name: str, steps: int, seed: int, folder: Path) -> ConfigDict:
  """A run of a method, whose teachers are in `folder`."""
  racer = racers()[name]
  config = many_teachers.student(("heads", "phi_s"), steps, seed, folder)
  config.method = ConfigDict(racer.method)
  names = [f"{t}/" for t in many_teachers.WIDTHS]
  if name == "joint_svd":
    names = [""]
  weights = {start + k: w for start in names for k, w in racer.losses.items()}
  config.losses = ConfigDict(weights)
  if name == "unic":
    config.balance = ConfigDict({"name": "dropping"})
  field.recipe(config, steps, seed)
  config.eval.evals = ("knn", "probe")
  return config
