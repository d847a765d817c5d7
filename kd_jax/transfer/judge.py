"""What a task is judged by, whatever the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from kd_jax.interfaces import DataSource
from kd_jax.types import Variables


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
