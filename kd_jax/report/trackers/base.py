"""What a tracker is told, and what it has to offer.

A file of this folder is called like the package that it needs and defines
`Tracker`, which is built with a `Run`. What a service wants to know besides
(its address, a key, a project) it reads from its own environment variables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


@dataclasses.dataclass(frozen=True)
class Run:
  """A run, as a service will show it.

  Attributes:
    name: of its folder.
    folder: where it is, on this machine.
    config: {'optim.lr': '0.1'}.
    known: the service's own name of it, if it goes on there; '' if it is new.
  """

  name: str
  folder: Path
  config: Mapping[str, str]
  known: str


class TrackerLike(Protocol):
  """A run in a service.

  Attributes:
    id: the service's own name of it, by which it can go on.
  """

  id: str

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Sends figures after `step` updates; NaN and infinities among them."""
    ...

  def close(self, *, failed: bool) -> None:
    """Sends what is left, and whether the run ended in an error."""
    ...
