"""A student on disk as the backbone of other people's detectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_jax import disk, resolve
from kd_jax.convert import pretrained
from kd_jax.convert.layouts import base
from kd_jax.models.backbone import Backbone

ABOUT = "README.md"


def check(model: Backbone, layout: str, form: str = "") -> None:
  """Raises ValueError if `save_layout` would not write this."""
  found = resolve.symbol("convert.layouts", layout, "LAYOUT")
  base.family_of(found, model)
  base.form_of(found, form)


def save_layout(
  model: Backbone,
  variables: Mapping[str, Any],
  directory: str | Path,
  *,
  name: str,
  layout: str,
  form: str = "",
) -> Path:
  """Writes a student under the names of a library of detectors.

  Args:
    model: the student; its classifier is left out.
    variables: its parameters and statistics.
    directory: is created if necessary. It gets the weights and README.md,
      which says how to load them.
    name: the architecture, a name of `kd_jax.models.list_models`.
    layout: a file of `kd_jax.convert.layouts`.
    form: where in a detector, one of the layout's forms; '' is the usual one.

  Returns:
    The directory.

  Raises:
    ValueError: there is no such layout or form, the library has no such
      student, or the variables do not fit.
  """
  pretrained.check_family(model, name)
  found = resolve.symbol("convert.layouts", layout, "LAYOUT")
  form = base.form_of(found, form)
  tensors = base.renamed(found, model, variables, form)
  folder = Path(directory)
  folder.mkdir(parents=True, exist_ok=True)
  found.write(tensors, folder, form)
  flip = slice(None, None, -1 if model.channel_order == "bgr" else 1)
  rgb = model.clone(mean=model.mean[flip], std=model.std[flip])
  build = base.family_of(found, model).build(rgb, name)
  text = f"# {name} for {found.title}\n\n{found.about(build, rgb, form)}"
  disk.write(folder / ABOUT, text.encode())
  return folder
