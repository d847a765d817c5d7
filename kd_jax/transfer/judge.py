"""What a task is judged by, whatever the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

import jax

from kd_jax.interfaces import DataSource
from kd_jax.train import mesh as mesh_lib
from kd_jax.types import ArrayTree, Variables


class Judge(Protocol):
  """Measures a network on labelled images, such as `classify.Judge`."""

  @property
  def figure(self) -> str:
    """The name of the figure that chooses rates and stands in tables."""
    ...

  def figures(
    self, variables: Variables, source: DataSource
  ) -> Mapping[str, float]:
    """{name: value} of the images of `source`; larger is better."""
    ...


JudgeT = TypeVar("JudgeT", bound=Judge, covariant=True)
"""The judge of a task."""


def on_devices(tree: ArrayTree, mesh: jax.sharding.Mesh) -> ArrayTree:
  """Arrays of the host, copied to the devices once and not with every batch.

  What is there already stays as it is. So whatever is judged, compiled
  functions see arrays of one layout, and are compiled once.

  Args:
    tree: arrays.
    mesh: the devices.
  """

  def placed(array: ArrayTree) -> ArrayTree:
    known = isinstance(array, jax.Array)
    return array if known else mesh_lib.place(array, mesh)

  return jax.tree.map(placed, tree)
