"""What writing a bank and training from it have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kd_jax.data import bank as bank_lib
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.views import Views
from kd_jax.interfaces import DataSource

# The student may see the stored crops larger, smaller or otherwise resized.
_OWN = (
  "image_size",
  "interpolation",
  "crop_pct",
  "crop_mode",
  "train_interpolation",
)


_BASIS = ("mean", "basis", "singular_values", "channel_variance")


def settings(views: Preprocess) -> dict[str, Any]:
  """The settings that decide what a crop shows, as JSON values."""
  fields = views.stated()
  plain = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
  beside = (*_own(views), "num_crops", "also")  # sizes for other teachers
  return {k: v for k, v in plain.items() if k not in beside}


def seen(views: Preprocess) -> dict[str, Any]:
  """How the teacher saw the crops."""
  return {k: v for k, v in views.stated().items() if k in _OWN}


def _own(views: Preprocess) -> tuple[str, ...]:
  """What the student's views may differ in."""
  shared = set()
  if views.augment != "crop":  # cut out of the evaluation view
    shared |= {"crop_pct", "crop_mode"}
  if views.shift or views.erase_prob:  # drawn in pixels of the view
    shared.add("image_size")
  return tuple(name for name in _OWN if name not in shared)


def check(bank: bank_lib.Bank, views: Views, data: DataSource) -> None:
  """Whether a bank belongs to these images and these views.

  Raises:
    ValueError: it was written for others.
  """
  if not isinstance(views, Preprocess):
    raise ValueError(
      f"the bank {bank.place} holds what a teacher said about whole images; "
      "views with masks cannot use it. Set --config.teacher.source=none"
    )
  header = bank.header
  plain = {} if bank.per_image else settings(views)
  stored = {} if bank.per_image else header.about["views"]
  ours = {
    "images": data.fingerprint,
    "records": len(data),
    **{f"preprocess.{k}": v for k, v in plain.items()},
  }
  theirs = {
    "images": header.about["images"],
    "records": header.records,
    **{f"preprocess.{k}": v for k, v in stored.items()},
  }
  wrong = bank_lib.difference(ours, theirs)
  if wrong:
    raise ValueError(
      f"the bank {bank.place} belongs to other crops: {wrong}. Train on what "
      "it was written for, or write another one."
    )
  if not bank.per_image and header.crops % views.num_crops:
    raise ValueError(
      f"preprocess.num_crops is {views.num_crops}; the bank {bank.place} "
      f"stores {header.crops} crops of an image per pass, which it must divide"
    )


def basis_of(
  constants: Mapping[str, np.ndarray], tap: str
) -> dict[str, np.ndarray] | None:
  """The basis of a tap among the constants of a bank; None without one."""
  named = {name: f"{tap}/{name}" for name in _BASIS}
  for names in (named, {name: name for name in _BASIS}):
    if all(key in constants for key in names.values()):
      return {name: constants[key] for name, key in names.items()}
  return None


def artifact(
  constants: Mapping[str, np.ndarray], tap: str, width: int
) -> dict[str, np.ndarray]:
  """The bank's basis, for a student of `width` channels.

  Args:
    constants: what `basis_of` finds.
    tap: for the message.
    width: of the student, or of the target.

  Raises:
    ValueError: the bank keeps fewer directions.
  """
  dim, stored = constants["basis"].shape
  kept = min(width, dim)
  if stored < kept:
    raise ValueError(
      f"the bank keeps {stored} directions of the teacher's {dim}, and the "
      f"student has {width} channels; write one with codec.width={kept} (of "
      f"maps: codec.directions.{tap}={kept})"
    )
  return {
    "mean": constants["mean"],
    "basis": np.ascontiguousarray(constants["basis"][:, :kept]),
    "singular_values": constants["singular_values"][:kept],
    "channel_variance": constants["channel_variance"],
  }
