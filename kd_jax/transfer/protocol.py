"""How a transfer is judged: rates, repeats, and what chooses between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

SELECTS = ("holdout", "best_test")
TRAINS = ("network", "head")


@dataclasses.dataclass(frozen=True)
class Protocol:
  """What `config.transfer` says.

  Attributes:
    trains: 'network' fine-tunes everything, 'head' leaves the backbone as it
      came (a linear probe, if the head is linear).
    rates: learning rates to choose from; () takes `optim.lr`.
    seeds: of the runs that count: each has its own order of images, head and,
      with `shots`, its own draw of labelled images.
    shots: labelled images to learn from: per class, or in all where labels
      are masks; 0 takes every one.
    holdout: share of the training images that rates are chosen by. Runs that
      count train on all images, or with `shots` on a draw of the others.
    search_seeds: runs of every rate that choose it, at seeds of their own.
    select: 'holdout' chooses the rate by held-out images and counts the last
      weights; 'best_test' is the protocol of the KDEP paper: the best
      evaluation on the test set counts, of the rate that is best there.
    evals: files of kd_jax/evals that judge the features as they came, such as
      'knn' and 'probe'.
    at_once: runs side by side, each in a thread: a small network leaves most
      cores of a CPU idle. Results are the same, memory adds up. With several
      devices or with trackers it is one at a time in any case.

  Raises:
    ValueError: a value that is not allowed.
  """

  trains: str = "network"
  rates: tuple[float, ...] = ()
  seeds: tuple[int, ...] = (0,)
  shots: int = 0
  holdout: float = 0.1
  search_seeds: int = 1
  select: str = "holdout"
  evals: tuple[str, ...] = ()
  at_once: int = 1

  def __post_init__(self) -> None:
    for name in ("rates", "seeds", "evals"):  # configs hold lists
      object.__setattr__(self, name, tuple(getattr(self, name)))
    for name, allowed in (("select", SELECTS), ("trains", TRAINS)):
      if getattr(self, name) not in allowed:
        raise ValueError(
          f"transfer.{name} is {getattr(self, name)!r}; it can be {allowed}"
        )
    for name, (holds, allowed) in self._ranges().items():
      if not holds:
        raise ValueError(
          f"transfer.{name} is {getattr(self, name)}; it must be {allowed}"
        )

  def _ranges(self) -> dict[str, tuple[bool, str]]:
    shown = {f"{rate:g}" for rate in self.rates}  # as folders are called
    whole = all(isinstance(seed, int) and seed >= 0 for seed in self.seeds)
    return {
      "rates": (
        all(rate > 0 for rate in self.rates) and len(shown) == len(self.rates),
        "positive numbers that differ in their first six digits",
      ),
      "seeds": (
        bool(self.seeds) and whole and len({*self.seeds}) == len(self.seeds),
        "different whole numbers from 0 on, at least one",
      ),
      "shots": (self.shots >= 0, "at least 0 (all)"),
      "holdout": (0 < self.holdout < 1, "in (0, 1)"),
      "search_seeds": (self.search_seeds >= 1, "at least 1"),
      "at_once": (self.at_once >= 1, "at least 1"),
    }

  @property
  def searches(self) -> bool:
    """Whether held-out images choose a rate."""
    return self.select == "holdout" and len(self.rates) > 1

  def search(self) -> list[tuple[float, int]]:
    """(rate, seed) of every run that chooses the rate."""
    if not self.searches:
      return []
    first = max(self.seeds) + 1
    seeds = range(first, first + self.search_seeds)
    return [(rate, seed) for rate in self.rates for seed in seeds]


def best(found: Mapping[tuple[float, int], float]) -> float:
  """The rate with the highest mean figure; of equal ones the lowest.

  Args:
    found: (rate, seed) -> figure.
  """
  rates = sorted({rate for rate, _ in found})
  means = [np.mean([v for (r, _), v in found.items() if r == k]) for k in rates]
  return rates[int(np.argmax(means))]


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
  """Mean, and standard error of it; None for a single value."""
  if len(values) < 2:
    return float(np.mean(values)), None
  error = np.std(values, ddof=1) / len(values) ** 0.5
  return float(np.mean(values)), float(error)
