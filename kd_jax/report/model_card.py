"""The README.md of an exported student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn

_TEXT = """\
# {name}, pre-trained by kd_jax

{facts}

Images are RGB. timm/ expects them normalised, flax/ and stablehlo/ normalise
themselves and expect values in [0, 1].

PyTorch:

```python
import timm
model = timm.create_model({arguments})
vectors = model.eval()(images)  # float32 (n, 3, {size}, {size}), normalised
```
{merged}
JAX:

```python
import kd_jax
model, variables = kd_jax.load_pretrained("{name}", "flax")
taps = model.apply(variables, images, train=False)  # (n, {size}, {size}, 3)
```

JAX alone, without kd_jax (pip install jax flatbuffers):

```python
from jax import export
model = export.deserialize(open("stablehlo/model.bin", "rb").read())
vectors = model.call(images)["pooled"]  # (n, {size}, {size}, 3)
```
"""

_MERGED = """
Its branches are merged: build it without `fused` and `checkpoint_path`, call
`timm.utils.reparameterize_model(model)`, then load timm/model.safetensors.
"""

_ONNX = """\
# {name}, pre-trained by kd_jax, as ONNX

model.onnx takes float32 RGB images (n, {size}, {size}, 3) with values in
[0, 1], any number of them, which it normalises. It returns {outputs}.

pip install onnxruntime

```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
(vectors,) = session.run(["pooled"], {{"images": images}})
```
"""


def text(
  model: nn.Module,
  name: str,
  recipe: Mapping[str, Any],
  about: Mapping[str, Any],
  options: Mapping[str, Any],
) -> str:
  """What the student is and how to load it.

  Args:
    model: the student.
    name: its architecture.
    recipe: the config of its run.
    about: the summary of its run.
    options: of the architecture, where they differ from those of `name`.
  """
  known = facts(model, recipe, about)
  return _TEXT.format(
    name=name,
    facts="\n".join(f"- {k}: {v}" for k, v in known),
    arguments=_arguments(model, name, options),
    size=about["image_size"],
    merged=_MERGED if options.get("fused") else "",
  )


def onnx(name: str, size: int, outputs: Sequence[str]) -> str:
  """How to call a student that is written as ONNX.

  Args:
    name: its architecture.
    size: of the images, in pixels.
    outputs: names of what it returns.
  """
  listed = " and ".join(f"`{output}`" for output in outputs)
  return _ONNX.format(name=name, size=size, outputs=listed)


def facts(
  model: nn.Module, recipe: Mapping[str, Any], about: Mapping[str, Any]
) -> list[tuple[str, Any]]:
  """[(label, value)] of a student; see `text`."""
  teacher = "none"
  if about.get("teacher"):
    teacher = f"{about['teacher']} ({about['teacher_weights'] or 'untrained'})"
  data = recipe["data"]
  return [
    ("method", about["task"]),
    ("teacher", teacher),
    ("data", f"{data['name']} {data.get('root') or data.get('split') or ''}"),
    ("steps", f"{recipe['steps']} of {recipe['batch_size']} images"),
    ("parameters", about["student_parameters"]),
    ("width of the pooled features", model.num_features),
    ("classes", model.num_classes),
    ("evaluation view", about["evaluation_view"]),
    ("mean", model.mean),
    ("std", model.std),
  ]


def _arguments(model: nn.Module, name: str, options: Mapping[str, Any]) -> str:
  return ", ".join(
    [
      f'"{name}"',
      f"num_classes={model.num_classes}",
      f'global_pool="{model.global_pool}"',
      *(f"{k}={v!r}" for k, v in options.items()),
      'checkpoint_path="timm/model.safetensors"',
    ]
  )
