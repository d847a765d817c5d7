"""Who takes part in the race, and where: configs of every method.

All have one optimizer, AdamW, whose steps do not depend on the scale of a
loss: nobody's weight has to be tuned for it. Terms of one method are weighed
as its paper does. Labels are read by none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from benchmarks import _digits
from configs import common_scenes
from configs.common_scenes import scenes
from configs.common_stagewise import stagewise

UPSTREAM = len(_digits.UPSTREAM)
RATE, DECAY = 3e-3, 0.05
SCENES = 4000  # for pre-training
EVALUATED = {"train": 1000, "test": 1000}
HEAD = 128  # channels in the heads of UNIC, Theia and RADIO
QUEUE = 512  # rows: what LightlyTrain takes for 1001 to 2000 images
SCALEKD = {
  "name": "scalekd",
  "student": ("stage3", "stage4"),
  "target": "stage4",
  "resume": "stage4",
  "heads": (4, 4),
  "sharpness": 5.0,
}
VIEWS = {"proxy": 0.08, "final": 0.08, "proxy_alt": 0.06, "final_alt": 0.06}


class Racer(NamedTuple):
  """A method.

  Attributes:
    title: in the table.
    method: its fields.
    losses: weights of its terms.
  """

  title: str
  method: dict[str, Any]
  losses: dict[str, float]


class Course(NamedTuple):
  """Images, a teacher for them, and a student.

  Attributes:
    teacher: its pre-training with labels.
    student: a config of KDEP's, by the number of steps.
  """

  teacher: Callable[[bool], ConfigDict]
  student: Callable[[int], ConfigDict]


def racers() -> dict[str, Racer]:
  """All of them; the first is what the others are compared with."""
  return {**_ours(), **_classics(), **_recent(), **many()}


def _ours() -> dict[str, Racer]:
  """What this package was made for."""
  kdep = _digits.kdep(1).method.to_dict()
  stages = stagewise(epoch=1, epochs=1, head_epochs=0)
  every = {k: v for k, v in stages.losses.to_dict().items() if k != "ce"}
  whole = {**stages.method.to_dict(), "hand_over": "last"}
  return {
    "kdep": Racer("KDEP", kdep, {"feature": 3.0}),
    "kdep_dense": one("KDEP + maps", "kdep_dense", summary=3.0, patches=3.0),
    "scalekd": Racer("ScaleKD", SCALEKD, VIEWS),
    "fkd": Racer("FKD", {"name": "fkd"}, {"soft": 1.0}),
    "stagewise": Racer("stage-wise", whole, every),
    "logits": Racer("logits (Hinton)", kdep, {"kl": 1.0}),
  }


def _classics() -> dict[str, Racer]:
  """`kd_jax/methods/classic`."""
  crd = {"name": "crd", "width": 64, "negatives": QUEUE}
  review = {"name": "reviewkd", "width": 32}
  return {
    "fitnets": one("FitNets", "fitnets", hint=1.0),
    "at": one("attention transfer", "attention_transfer", attention=1.0),
    "sp": one("SP", "sp", similarity=1.0),
    "pkt": one("PKT", "pkt", neighbours=1.0),
    "nst": one("NST", "nst", selectivity=1.0),
    "rkd": one("RKD", "rkd", distance=25.0, angle=50.0),
    "dkd": one("DKD", "dkd", decoupled=1.0),
    "dist": one("DIST", "dist", images=1.0, classes=1.0),
    "crd": Racer("CRD", crd, {"student": 1.0, "teacher": 1.0}),
    "simkd": one("SimKD", "simkd", feature=1.0),
    "reviewkd": Racer("ReviewKD", review, {"review": 1.0}),
  }


def _recent() -> dict[str, Racer]:
  """`kd_jax/methods/recent`."""
  queue = {"queue": QUEUE}
  maps = {"student": "stage4", "teacher": "stage4", "patch": 4}
  terms = {"token": 1.0, "feature": 1.0, "patch": 1.0}
  both = {"global": 1.0, "local": 1.0}
  return {
    "lightly_global": Racer(
      "LightlyTrain v1", {"name": "lightly_global", **queue}, {"global": 1.0}
    ),
    "lightly_dense": one("LightlyTrain v2", "lightly_dense", dense=1.0),
    "lightly_both": Racer(
      "LightlyTrain v3", {"name": "lightly_both", **queue}, both
    ),
    "tinymim": one("TinyMIM", "tinymim", relations=1.0),
    "dinov3": Racer(
      "DINOv3-style",
      {"name": "dinov3", **maps, "prototypes": QUEUE, "hidden": 128},
      {"image": 1.0, "patch": 1.0, "koleo": 0.1},
    ),
    "proteus": Racer("Proteus", {"name": "proteus", **maps}, terms),
  }


def many(width: int = HEAD) -> dict[str, Racer]:
  """Made for several teachers (`_race_many`); in the race of all they have one.

  Args:
    width: of their heads, which have to be as narrow as the networks.
  """
  unic = {"name": "unic", "hidden": width // 4, "last_hidden": width}
  both = {"summary": 1.0, "patches": 1.0}
  return {
    "unic": Racer("UNIC", unic, dict.fromkeys(both, 0.5)),
    "theia": Racer(
      "Theia", {"name": "theia", "hidden": HEAD}, {"patches": 1.0}
    ),
    "radio": Racer("RADIO", {"name": "radio", "hidden": HEAD}, both),
  }


def one(title: str, name: str, **losses: float) -> Racer:
  """A method with its own defaults."""
  return Racer(title, {"name": name}, losses)


def contest(racer: Racer, course: Course, steps: int, seed: int) -> ConfigDict:
  """A run of a method."""
  config = course.student(steps)
  config.method, config.losses = (
    ConfigDict(racer.method),
    ConfigDict(racer.losses),
  )
  if {"kl", "soft", "decoupled", "images"} & set(racer.losses):
    config.student.overrides.num_classes = UPSTREAM
  recipe(config, steps, seed)
  return config


def recipe(config: ConfigDict, steps: int, seed: int) -> None:
  """What all runs of a race share."""
  config.optim.update({"name": "adamw", "lr": RATE, "weight_decay": DECAY})
  config.optim.update({"decay_all": False, "schedule": "cosine"})
  config.optim.warmup = steps // 20
  config.seed, config.steps = seed, steps
  config.log_every = config.checkpoint.every = steps
  config.eval.update({"every": 0, "evals": ("knn",), "pictures": 0})
  config.eval.judge = ConfigDict({"name": ""})


def _digits_teacher(small: bool) -> ConfigDict:
  return _digits.supervised(_digits.TEACHER, 4 if small else _digits.STEPS)


def _scenes_teacher(small: bool) -> ConfigDict:
  steps, length = (4, 256) if small else (600, 6000)
  config = common_scenes.supervised(common_scenes.TEACHER, steps, length)
  config.eval.pictures = 0
  return config


def _scenes_student(steps: int) -> ConfigDict:
  config = common_scenes.unlabelled(steps, SCENES)
  new = common_scenes.DOWNSTREAM
  for seed, (split, length) in enumerate(EVALUATED.items(), 3):
    config.eval[split] = scenes(split, new, length=length, seed=seed)
  config.eval.limit = 0
  return config


COURSES = {
  "digits": Course(_digits_teacher, _digits.kdep),
  "scenes": Course(_scenes_teacher, _scenes_student),
}
