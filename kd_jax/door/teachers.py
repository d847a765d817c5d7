"""Who teaches: from what people call a network to a name and its weights."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from kd_jax import models
from kd_jax.convert import checkpoint
from kd_jax.door import names

ALIASES = {
  "beit-base": "beit_base_patch16_224.in22k_ft_in22k_in1k",
  "clip-base": "vit_base_patch16_clip_224.openai",
  "clip-large": "vit_large_patch14_clip_224.openai",
  "clip-resnet50": "resnet50_clip.openai",
  "convnext-base": "convnext_base.fb_in22k_ft_in1k",
  "convnext-tiny": "convnext_tiny.fb_in22k_ft_in1k",
  "convnextv2-base": "convnextv2_base.fcmae_ft_in22k_in1k",
  "deit3-base": "deit3_base_patch16_224.fb_in22k_ft_in1k",
  "dinov2-base": "vit_base_patch14_dinov2.lvd142m",
  "dinov2-giant": "vit_giant_patch14_dinov2.lvd142m",
  "dinov2-large": "vit_large_patch14_dinov2.lvd142m",
  "dinov2-small": "vit_small_patch14_dinov2.lvd142m",
  "dinov3-base": "vit_base_patch16_dinov3.lvd1689m",
  "dinov3-large": "vit_large_patch16_dinov3.lvd1689m",
  "dinov3-small": "vit_small_patch16_dinov3.lvd1689m",
  "resnet101": "resnet101.a1h_in1k",
  "resnet18": "resnet18.a1_in1k",
  "resnet50": "resnet50.a1_in1k",
  "siglip-base": "vit_base_patch16_siglip_224.webli",
  "swin-base": "swin_base_patch4_window7_224.ms_in22k_ft_in1k",
}
"""What people say, and which of timm's checkpoints it is."""

RANDOM = "random"
"""In the place of weights: an untrained teacher, which needs no download."""

_FILES = (".safetensors", ".pth", ".pt", ".bin")


class Words(NamedTuple):
  """What errors call the network and its weights: the arguments' names."""

  network: str = "teacher"
  weights: str = "teacher_weights"


_WORDS = Words()


@dataclasses.dataclass(frozen=True)
class Chosen:
  """Fields of `config.teacher`, and why.

  Attributes:
    source: a file of `kd_jax.teachers`.
    name: the architecture.
    weights: a file, a folder or a hub name; '' if there are none to load.
    why: for people.
  """

  source: str
  name: str
  weights: str
  why: str


def choose(teacher: str, weights: str = "", words: Words = _WORDS) -> Chosen:
  """The teacher that is meant; nothing is downloaded.

  Args:
    teacher: one of `ALIASES`, a timm name with or without a tag, or a folder
      that holds model.safetensors and config.json, as timm stores them.
    weights: a file, a folder or a hub name; 'random' for an untrained teacher;
      '' for those that the name stands for.
    words: for errors.

  Raises:
    ValueError: nobody has this name, it says no weights, or there is no such
      file.
  """
  if not teacher:
    raise ValueError(
      f"no {words.network} is named; it is one of {sorted(ALIASES)}, a timm "
      "name such as 'resnet50.a1_in1k', or a folder with "
      "model.safetensors and config.json"
    )
  if looks_like_a_path(teacher):
    return _of_folder(teacher, weights, words)
  full = ALIASES.get(teacher, teacher)
  name, _, tag = full.partition(".")
  source = _source(name, teacher, words)
  if weights == RANDOM:
    return _untrained(source, name, words)
  if weights:
    return Chosen(source, name, _place(weights, words), f"weights: {weights}")
  if source == "timm":  # it has weights for names without a tag, too
    return Chosen(source, full, "pretrained", "runs in PyTorch, which is slow")
  place = f"timm/{name}.{tag or _usual_tag(name, words)}"
  return Chosen(source, name, place, f"{place} of the Hugging Face hub")


def _untrained(source: str, name: str, words: Words) -> Chosen:
  if source == "timm":
    raise ValueError(
      f"{words.weights}='random' needs a network of this package, and {name} "
      "is not one: 'kd-jax models' lists them"
    )
  return Chosen("random", name, "", "untrained: it knows nothing")


def _usual_tag(name: str, words: Words) -> str:
  """The tag of an architecture among `ALIASES`.

  Raises:
    ValueError: it is not there.
  """
  tags = dict(full.split(".", 1) for full in ALIASES.values())
  if name not in tags:
    raise ValueError(
      f"the {words.network} {name!r} says no weights; add timm's tag, as in "
      "'resnet50.a1_in1k', or name a file, a folder or a hub name as "
      f"{words.weights}"
    )
  return tags[name]


def looks_like_a_path(text: str) -> bool:
  """Whether a file or a folder is meant, and no name of a network."""
  if text in ALIASES or models.exists(text):
    return False
  return (
    os.sep in text
    or text.startswith(("~", "."))
    or text.endswith(_FILES)
    or Path(text).is_dir()
  )


def _of_folder(teacher: str, weights: str, words: Words) -> Chosen:
  """A checkpoint that lies here, and says what it is of."""
  place = Path(teacher).expanduser()
  if weights:
    raise ValueError(
      f"the {words.network} {teacher} is a checkpoint, and {words.weights} "
      f"names another: {weights}. Leave one of them out"
    )
  if not place.exists():
    raise ValueError(
      f"there is no {teacher}; a {words.network} is a name, or a folder with "
      f"{checkpoint.WEIGHTS} and {checkpoint.CONFIG}"
    )
  if place.is_file() and place.suffix not in _FILES:
    raise ValueError(
      f"{teacher} is no checkpoint; a {words.network} is a name, a folder with "
      f"{checkpoint.WEIGHTS} and {checkpoint.CONFIG}, or a file that ends with "
      f"{', '.join(_FILES)}"
    )
  folder = place if place.is_dir() else place.parent
  if (folder / "student").is_dir():  # of a run
    folder = place = folder / "student"
  name = str(about(folder).get("architecture", ""))
  if not name:
    raise ValueError(
      f"{folder} has no {checkpoint.CONFIG} that names an architecture; give "
      f"the name as {words.network}, and {teacher} as {words.weights}"
    )
  return Chosen("online", name, str(place.resolve()), f"as {folder} says")


def about(folder: Path) -> dict[str, Any]:
  """What config.json of a checkpoint says; {} without one.

  Raises:
    ValueError: it cannot be read.
  """
  path = folder / checkpoint.CONFIG
  if not path.exists():
    return {}
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise ValueError(f"{path} cannot be read ({error})") from error
  return found if isinstance(found, dict) else {}


def _place(weights: str, words: Words) -> str:
  """A path, which must be there; a hub name is tried when it is loaded."""
  is_hub = re.fullmatch(r"(hf[-_]hub:)?[\w-][\w.-]*/[\w.-]+", weights)
  path = Path(weights).expanduser()
  if "://" not in weights and path.exists():
    return str(path.resolve())
  if "://" not in weights and (not is_hub or weights.endswith(_FILES)):
    raise ValueError(
      f"there is no {weights!r}; {words.weights} is a file, a folder, a hub "
      "name such as 'timm/resnet50.a1_in1k', or 'random'"
    )
  return weights


def _source(name: str, said: str, words: Words) -> str:
  """'online' for networks of this package, 'timm' for others of timm's.

  Raises:
    ValueError: neither has it.
  """
  if models.exists(name):
    return "online"
  if not all(importlib.util.find_spec(each) for each in ("torch", "timm")):
    near = names.near(said, [*ALIASES, *models.list_models()])
    raise ValueError(
      f"there is no {words.network} {said!r}; {near}. 'kd-jax models' "
      "lists all, and 'pip install torch timm' adds timm's others"
    )
  import timm

  if name not in timm.list_models():
    near = names.near(said, [*ALIASES, *timm.list_models()])
    raise ValueError(f"timm has no {words.network} {said!r}; {near}")
  return "timm"
