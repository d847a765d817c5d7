"""Which parameters of a network its taps are computed from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array

from kd_jax import trees
from kd_jax.models.backbone import variable_shapes
from kd_jax.types import Network


def parameters(
  model: Network, taps: tuple[str, ...], image_size: int = 0
) -> dict[str, frozenset[str]]:
  """{tap: paths below 'params' of what it is computed from}.

  Args:
    model: a network.
    taps: names.
    image_size: side of the images; 0 takes the model's `example_size`.
  """
  size = (image_size, image_size) if image_size else model.example_size
  image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  variables = trees.flatten(variable_shapes(model, image_size))

  def run(leaves: list[Array], image: Array) -> list[Array]:
    flat = dict(zip(variables, leaves, strict=True))
    found = model.apply(trees.unflatten(flat), image, train=False)
    return [found[tap] for tap in taps]

  jaxpr = jax.make_jaxpr(run)(list(variables.values()), image).jaxpr
  # The image is the last input.
  owners = dict(zip(jaxpr.invars[:-1], variables, strict=True))
  found = {}
  for tap, output in zip(taps, jaxpr.outvars, strict=True):
    needed = _ancestors(jaxpr, output)
    found[tap] = _parameters(p for v, p in owners.items() if v in needed)
  return found


def _parameters(paths: Iterable[str]) -> frozenset[str]:
  top = "params/"
  return frozenset(p.removeprefix(top) for p in paths if p.startswith(top))


def _ancestors(jaxpr: core.Jaxpr, output: Any) -> set[Any]:
  """All variables that `output` is computed from."""
  needed = set(_variables([output]))
  for equation in reversed(jaxpr.eqns):
    if needed.intersection(equation.outvars):
      needed.update(_variables(equation.invars))
  return needed


def _variables(atoms: Iterable[Any]) -> list[Any]:
  return [atom for atom in atoms if not isinstance(atom, core.Literal)]
