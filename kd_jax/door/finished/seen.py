"""What a student, an untrained one and its teacher see in images."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from kd_jax.build import networks
from kd_jax.data import pipeline
from kd_jax.data.preprocess import Preprocess
from kd_jax.evals import features
from kd_jax.interfaces import DataSource
from kd_jax.models.backbone import Backbone
from kd_jax.train.views import as_unit
from kd_jax.types import Array, Batch, Taps, Variables

TAP = "pooled"

Sees = Callable[[Array], Taps]
"""Images (n, h, w, 3), uint8 -> taps, `TAP` among them."""


def by(network: Backbone, variables: Variables) -> Sees:
  """What a network sees, in evaluation mode."""

  # An argument: a constant would be folded by the compiler.
  @jax.jit
  def run(variables: Variables, image: Array) -> Taps:
    taps = network.apply(variables, as_unit(image), train=False)
    return {TAP: taps[TAP]}

  return functools.partial(run, jax.device_put(dict(variables)))


def untrained(network: Backbone, size: int, seed: int) -> Variables:
  """Fresh weights.

  Args:
    network: the architecture.
    size: of the images, pixels.
    seed: of the weights.
  """
  init = jax.jit(functools.partial(network.init, train=False))
  return init(jax.random.key(seed), jnp.zeros((1, size, size, 3)))


def teacher(run: str) -> Sees:
  """What the teacher of a run sees.

  Args:
    run: the folder.

  Raises:
    ValueError: it is no run, its teacher is no network, or cannot be loaded.
  """
  path = Path(run).expanduser() / "config.json"
  try:
    recipe = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError):
    recipe = {}
  wanted = recipe.get("teacher", {}) if isinstance(recipe, dict) else {}
  if not wanted.get("name") or wanted.get("source") in ("bank", "none"):
    raise ValueError(
      f"the teacher is asked for, and {path} names no network that could be "
      "one; leave the teacher out, or name the folder of a run of 'distill'"
    )
  fields = {"teacher": wanted, "dtype": "float32"}
  teaching = networks.teaching(ConfigDict(fields))
  if isinstance(teaching.network, Backbone):
    return by(teaching.network, teaching.variables)
  frozen: Mapping[str, Any] = {"teacher": teaching.variables}

  def ask(image: Array) -> Taps:
    rows = jnp.zeros(len(image))
    batch = Batch(image=as_unit(image), label=rows, mask=rows + 1)
    return teaching.source(frozen, batch).taps

  return ask


def extract(
  sees: Sees, source: DataSource, view: Preprocess, batch_size: int
) -> features.Features:
  """Features and labels of all images that can be read, in order.

  Args:
    sees: a network.
    source: the images.
    view: how they are prepared.
    batch_size: images at a time.

  Raises:
    ValueError: none can be read.
  """
  skipped: set[int] = set()

  def note(rows: Sequence[int]) -> None:
    skipped.update(rows)

  batches = pipeline.eval_batches(
    source, view, batch_size=batch_size, on_skip=note
  )
  with batches:
    try:
      return features.extract(sees, batches, TAP)
    except ValueError as error:
      if len(skipped) < len(source):
        raise
      raise ValueError(
        f"none of {len(source)} images can be read, {source.describe(0)} for "
        "one; are they damaged?"
      ) from error
