"""Several banks of one data set, read as one.

They may have been written one after the other, each by its own teacher; what
makes them fit together is that all hold the same crops of the same images.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from kd_jax.data.bank import Bank, Header
from kd_jax.interfaces import computed


@dataclasses.dataclass(frozen=True)
class Banks(Bank):
  """What the banks hold of the same crops; arrays are 'NAME/array'.

  Attributes:
    parts: ((name, bank), ...), at least one.
  """

  parts: tuple[tuple[str, Bank], ...] = ()

  @computed
  def header(self) -> Header:
    """That of the first one: what it says of crops is true of all."""
    return self.parts[0][1].header

  @property
  def per_image(self) -> bool:
    """No: see `joined`."""
    return False

  @property
  def fingerprint(self) -> str:
    """16 hex digits, of all of them."""
    text = "|".join(f"{name}={bank.fingerprint}" for name, bank in self.parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  @functools.cached_property
  def num_passes(self) -> int:
    """Passes that are complete in all of them, at most `passes`."""
    found = min(bank.num_passes for _, bank in self.parts)
    return min(found, self.passes or found)

  def read(self, passes: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    """See `Bank`.

    Raises:
      ValueError: stored bytes are damaged, or crops are not the same.
    """
    found: dict[str, np.ndarray] = {}
    for name, bank in self.parts:
      stored = bank.read(passes, ids)
      geometry = stored.pop("geometry")
      kept = found.setdefault("geometry", geometry)
      wrong = (kept != geometry).any((1, 2))
      if wrong.any():
        raise ValueError(
          f"the banks {self.parts[0][1].place} and {bank.place} hold other "
          f"crops of record {ids[wrong][0]}; write one of them again, from the "
          "same images"
        )
      found |= {f"{name}/{key}": value for key, value in stored.items()}
    return found

  def __getstate__(self) -> dict[str, Any]:
    return {**super().__getstate__(), "parts": self.parts}


def joined(banks: Mapping[str, Bank]) -> Banks | None:
  """The banks as one; None without any.

  Raises:
    ValueError: they do not hold the same crops, or answers for whole images.
  """
  if not banks:
    return None
  whole = [name for name, bank in banks.items() if bank.per_image]
  if whole:
    raise ValueError(
      f"the banks of the teachers {whole} hold what was said about whole "
      "images; such a bank teaches alone, as config.teacher"
    )
  first, *others = banks.values()
  for other in others:
    if _crops(first) != _crops(other):
      raise ValueError(
        f"the banks {first.place} and {other.place} hold other crops: "
        f"{_crops(first)} and {_crops(other)}. Write one of them again, from "
        "the same images with the same seed, preprocess and bank fields."
      )
  places = " + ".join(bank.place for bank in banks.values())
  return Banks(places, parts=tuple(banks.items()))


def _crops(bank: Bank) -> dict[str, Any]:
  """What decides which crops there are."""
  about = bank.header.about
  return {
    "images": about["images"],
    "seed": about["seed"],
    "crops": bank.header.crops,
    **about["views"],
  }
