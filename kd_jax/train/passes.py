"""How many passes of a bank a run goes round over: those it began with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from kd_jax.data.bank import Bank
from kd_jax.train.checkpoints import Checkpoints

_NOTE = "passes"


def begun_with(bank: Bank | None, saved: Checkpoints) -> Bank | None:
  """The bank, with the passes that the run of these checkpoints began with.

  A run that begins now has all that are complete. Runs from before this was
  noted go on as they always did, with all.

  Args:
    bank: that the run reads; None if there is none.
    saved: its checkpoints so far.

  Raises:
    ValueError: the bank has fewer passes than that by now.
  """
  if bank is None or bank.per_image:
    return bank
  record = saved.newest_record()
  if record is None:
    return dataclasses.replace(bank, passes=bank.num_passes)
  began = record.get(_NOTE, 0)
  if bank.num_passes < began:
    raise ValueError(
      f"the run in {saved.directory.parent} began with {began} passes of the "
      f"bank {bank.place}, which has {bank.num_passes} now; write them again "
      f"(--config.bank.passes={began}), or use another --workdir"
    )
  return dataclasses.replace(bank, passes=began)


def note(bank: Bank | None) -> Mapping[str, Any]:
  """What checkpoints of a run with this bank say of it."""
  return {_NOTE: bank.passes} if bank is not None and bank.passes else {}
