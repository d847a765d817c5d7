"""The README.md of a student on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn
from huggingface_hub import ModelCardData

from kd_jax.report import model_card

TAGS = ("kd_jax", "distillation")
_HUB = re.compile(r"(hf[-_]hub:)?([\w-][\w.-]*/[\w.-]+)")

_TEXT = """\
---
{front}
---

# {title}

A {name} that kd_jax pre-trained on images without labels: it learnt to see what
a teacher sees.

{facts}

## Load it

PyTorch:

```python
import timm
model = timm.create_model("hf-hub:{repo}", pretrained=True)
vectors = model.eval()(images)  # float32 (n, 3, {size}, {size}), normalised
```

JAX:

```python
import kd_jax
model, variables = kd_jax.load_pretrained("{name}", "{repo}")
taps = model.apply(variables, images, train=False)  # (n, {size}, {size}, 3)
vectors = taps["pooled"]  # of RGB images in [0, 1]
```

## Figures

{figures}

The figures are of the run that made these weights. Terms of the teacher's
weights and of the images may apply to the student as well.
"""


def text(
  repo: str,
  model: nn.Module,
  recipe: Mapping[str, Any],
  about: Mapping[str, Any],
  measured: Mapping[str, float],
  worth: Mapping[str, Any],
  licence: str,
) -> str:
  """The card.

  Args:
    repo: 'owner/name'.
    model: the student.
    recipe: the config of its run.
    about: the summary of its run.
    measured: the last value of every metric of its run.
    worth: what results.json of its evaluation holds; {} without one.
    licence: an identifier of the hub, such as 'apache-2.0'.
  """
  facts = [
    *model_card.facts(
      model, recipe, {**about, "teacher_weights": _public(about)}
    ),
    ("images", about.get("images", "unknown")),
    ("passes over them", about.get("epochs", "unknown")),
  ]
  # Paths of a machine say nothing to others.
  shown = [(k, v) for k, v in facts if k != "data"]
  return _TEXT.format(
    front=front(about, licence),
    title=repo.partition("/")[2],
    repo=repo,
    name=recipe["student"]["name"],
    facts="\n".join(f"- {k}: {v}" for k, v in shown),
    size=about["image_size"],
    figures="\n".join(_figures(measured, worth)),
  )


def _public(about: Mapping[str, Any]) -> str:
  """What others may know of the teacher's weights; '' for an untrained one."""
  weights = str(about.get("teacher_weights", ""))
  known = None if Path(weights).exists() else _HUB.fullmatch(weights)
  return known[2] if known else weights and "weights of its owner"


def front(about: Mapping[str, Any], licence: str) -> str:
  """What the hub reads, as YAML: licence, library, task, tags, base model."""
  weights = _public(about)
  return ModelCardData(
    license=licence,
    library_name="timm",
    pipeline_tag="image-feature-extraction",
    tags=list(TAGS),
    base_model=weights if "/" in weights else None,
  ).to_yaml()


def _figures(
  measured: Mapping[str, float], worth: Mapping[str, Any]
) -> list[str]:
  kept = ("loss/total", "eval/")
  rows = [
    f"- {name}: {value:.4g}"
    for name, value in measured.items()
    if name.startswith(kept)
  ]
  for who, found in worth.get("figures", {}).items():
    rows += [
      f"- {name} of the frozen {who}, {len(worth['classes'])} classes, "
      f"{worth['train_images']:,} images to learn from: "
      f"{100 * float(np.mean(values)):.1f} % of {worth['test_images']:,} right"
      for name, values in found.items()
      if values
    ]
  return rows or ["- none were measured"]
