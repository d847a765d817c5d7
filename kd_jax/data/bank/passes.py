"""How many passes of a bank a run goes round over: those it began with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_jax.data.bank.reader import Bank

_NOTE = "passes"


def begun_with(
  bank: Bank | None, record: Mapping[str, Any] | None, workdir: Path
) -> Bank | None:
  """The bank, with the passes that a run began with.

  A run that begins now has all that are complete. Runs from before this was
  noted go on as they always did, with all.

  Args:
    bank: that the run reads; None if there is none.
    record: of its newest checkpoint, see `note`; None if there is none.
    workdir: of the run, for the message.

  Raises:
    ValueError: the bank has fewer passes than that by now.
  """
  if bank is None or bank.per_image:
    return bank
  if record is None:
    return dataclasses.replace(bank, passes=bank.num_passes)
  began = record.get(_NOTE, 0)
  if bank.num_passes < began:
    raise ValueError(
      f"the run in {workdir} began with {began} passes of the "
      f"bank {bank.place}, which has {bank.num_passes} now; write them again "
      f"(--config.bank.passes={began}), or use another --workdir"
    )
  return dataclasses.replace(bank, passes=began)


def note(bank: Bank | None) -> Mapping[str, Any]:
  """What checkpoints of a run with this bank say of it."""
  return {_NOTE: bank.passes} if bank is not None and bank.passes else {}
