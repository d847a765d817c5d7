"""Two teachers of different widths and sizes, and one student of seconds.

Their weights are given by --config.teachers.NAME.weights.
"""

from ml_collections import ConfigDict

from configs.common import bank
from kd_jax.door.fields import teacher
from tests.configs import tiny

CHANNELS = {"a": (8, 8, 16, 24), "b": (4, 8, 8, 16)}
VARIANTS = ("", "one", "single", "bank_a", "bank_b", "banks", "mixed", "unic")


def get_config(variant: str = "") -> ConfigDict:
  """Both, one (of `config.teacher`, too), writers of banks, or students."""
  config = tiny.get_config()
  config.unlock()
  # Crops that both can be shown in sizes of their own.
  config.preprocess.update({"augment": "crop", "shift": 0, "scale": (0.5, 1.0)})
  config.fit.augment = True
  entries = {name: entry(name) for name in CHANNELS}
  entries["b"].preprocess = ConfigDict({"image_size": 12})
  if variant in ("single", "bank_a", "bank_b"):
    name = variant[-1] if variant != "single" else "a"
    found = entries[name].to_dict()
    config.preprocess.update(found.pop("preprocess"))
    for field in ("method", "weight"):
      del found[field]
    config.teacher.update(found)
    if variant != "single":
      bank(config, shard=48)
  else:
    chosen = ("a",) if variant == "one" else tuple(CHANNELS)
    config.teachers = ConfigDict({name: entries[name] for name in chosen})
    config.losses = ConfigDict({f"{name}/feature": 1.0 for name in chosen})
    if variant in ("banks", "mixed"):
      config.teachers.a.source = "bank"
    if variant == "banks":
      config.teachers.b.source = "bank"
    if variant == "unic":
      dropped(config)
  config.lock()
  return config


def dropped(config: ConfigDict) -> None:
  """UNIC's terms, and its teachers that come and go."""
  fields = {"name": "unic", "hidden": 8, "last_hidden": 8, "ladder": ()}
  config.method = ConfigDict(fields)
  terms = [f"{name}/{kind}" for name in "ab" for kind in ("summary", "patches")]
  config.losses = ConfigDict(dict.fromkeys(terms, 0.5))
  config.balance = ConfigDict({"name": "dropping"})


def entry(name: str) -> ConfigDict:
  """A ResNet-18 of a few channels."""
  network = tiny.network(CHANNELS[name], 0)
  return teacher("resnet18", overrides=network.overrides)
