"""From a config to the cells of a suite: students by transfers."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from kd_jax import config as config_lib
from kd_jax import resolve
from kd_jax.buckets import spool
from kd_jax.build import networks
from kd_jax.transfer.plan import Plan

Fields = Mapping[str, Any]
"""A config as nested dicts."""

_building = threading.Lock()
"""Cells that run side by side share what one of them builds."""


@dataclasses.dataclass(frozen=True)
class Row:
  """A student of the table.

  Attributes:
    title: what to call it.
    init_from: a run, a file, a folder or a hub name; '' is nothing.
    student: {'name', 'overrides'} of the network; {} is the transfer's own.
    trains: as in `Protocol`; '' is the transfer's own.
    pixels: no network at all: a linear classifier of raw pixels, where images
      have a label.
  """

  title: str
  init_from: str = ""
  student: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  trains: str = ""
  pixels: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
  """A transfer of a student.

  Attributes:
    row: of the student.
    column: of the transfer.
    folder: where it runs.
    fields: its config.
    plan: builds it.
  """

  row: str
  column: str
  folder: Path
  fields: Fields
  plan: Callable[[], Plan]


def rows(config: ConfigDict, where: Path) -> dict[str, Row]:
  """The students, finished workdirs among them.

  Args:
    config: of the task 'suite'.
    where: the workdir.

  Raises:
    ValueError: a student or a run that does not exist, or nothing may run.
  """
  if config.at_once < 1:
    raise ValueError(
      f"config.at_once is {config.at_once}; it must be at least 1: so many "
      "runs and transfers go side by side"
    )
  known, found = config.students.to_dict(), {}
  for name in config.rows:
    if name not in known:
      raise ValueError(
        f"config.rows names {name!r}; config.students has "
        f"{resolve.near(name, known)}"
      )
    found[name] = resolve.construct(Row, known[name], f"students.{name}")
    start = found[name].init_from
    left_out = start in config.runs and start not in config.order
    if left_out and not (where / start).is_dir():
      raise ValueError(
        f"the row {name!r} starts from the run {start!r}, which config.order "
        f"leaves out ({tuple(config.order)}); add it there, or leave the row "
        "out of --config.rows"
      )
  for path in config.workdirs:
    found[path] = Row(Path(path).name, path, networks.recipe_of(path))
  if config.baseline not in found:
    raise ValueError(
      f"config.baseline is {config.baseline!r}; it must be one of the rows "
      f"{list(found)}"
    )
  return found


def cells(
  config: ConfigDict, students: Mapping[str, Row], where: Path
) -> list[Cell]:
  """All cells that are possible, column by column.

  Args:
    config: of the task 'suite'.
    students: see `rows`.
    where: the workdir.

  Raises:
    ValueError: no transfer, or one that does not exist.
  """
  if not config.columns:
    raise ValueError(
      "config.columns is empty: it must name transfers of config.transfers, "
      f"which are {sorted(config.transfers)}"
    )
  plans: dict[str, Plan] = {}
  found = []
  for column in config.columns:
    base = _transfer(column, config.transfers.to_dict())
    for name, row in students.items():
      if row.pixels and base["task"] != "classify":
        continue
      fields = _filled_in(base, row, where, config.order)
      folder = where / "transfers" / column / name.replace("/", "_")
      found.append(
        Cell(name, column, folder, fields, _plan(fields, folder, plans))
      )
  return found


def _transfer(name: str, known: Mapping[str, Fields]) -> Fields:
  """The config of a transfer, or of the file that it names."""
  if name not in known:
    raise ValueError(
      f"config.columns names {name!r}; config.transfers has "
      f"{resolve.near(name, known)}"
    )
  wanted = known[name]
  if "config" in wanted:
    return config_lib.load(wanted["config"]).to_dict()
  return wanted


def _filled_in(
  base: Fields, row: Row, where: Path, runs: Collection[str]
) -> Fields:
  """The config of a cell."""
  own = where / row.init_from
  found = dict(base)
  is_run = row.init_from in runs or (row.init_from and own.is_dir())
  found["init_from"] = spool.address(own) if is_run else row.init_from
  if row.student:
    found["student"] = _student(row.student, base["student"])
  if row.trains:
    found["transfer"] = {**base["transfer"], "trains": row.trains}
  return found


def _student(row: Fields, base: Fields) -> Fields:
  """The network of a row, with the fields that the transfer wants of it.

  Those of another architecture would not fit; but how images are normalised
  belongs to the transfer.
  """
  asked = dict(base["overrides"])
  if row["name"] != base["name"]:
    asked = {k: v for k, v in asked.items() if k in ("mean", "std")}
  return {"name": row["name"], "overrides": {**row["overrides"], **asked}}


def _plan(
  fields: Fields, folder: Path, plans: dict[str, Plan]
) -> Callable[[], Plan]:
  """Builds a plan; those that only start elsewhere share their programs."""
  key = json.dumps({**fields, "init_from": ""}, sort_keys=True, default=list)

  def plan() -> Plan:
    config = ConfigDict(fields)
    with _building:
      if key not in plans:
        build = resolve.symbol("build", config.task, "plan")
        plans[key] = build(config, folder)
    initial = resolve.symbol("build", config.task, "initial")(config)
    known = plans[key]
    return dataclasses.replace(
      known,
      experiment=dataclasses.replace(known.experiment, initial=initial),
      start=config.init_from or "nothing",
    )

  return plan
