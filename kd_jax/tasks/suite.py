"""What students are worth: a list of transfers for a list of them.

Runs that the students come from may come first. Everything has a folder of its
own, so that the same command goes on after a kill. The workdir ends with one
table (report.html, comparison.md, comparison.csv), a chart and results.json.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from kd_jax import config as config_lib
from kd_jax import resolve, workdir
from kd_jax.build import networks
from kd_jax.report.run import summary
from kd_jax.running import results, suite
from kd_jax.running.suite import Row
from kd_jax.tasks import pretrain
from kd_jax.transfer.plan import Plan


def run(config: ConfigDict, where: str | Path) -> dict[str, Any]:
  """Runs or continues the suite of `config` in the folder `where`.

  Returns:
    What results.json holds.

  Raises:
    ValueError: more than one process; a row, column or run that does not
      exist; a teacher that has not learned its task; or anything that the
      runs and transfers refuse.
    Stopped: SIGTERM; the state is saved.
  """
  if jax.process_count() > 1:
    raise ValueError(
      f"a suite runs in one process, not in {jax.process_count()}; start it "
      "with python -m kd_jax.main"
    )
  where, rows = Path(where), _rows(config)
  columns = {name: _transfer(config.transfers[name]) for name in config.columns}
  about = {"task": config.task, "rows": config.rows, "columns": config.columns}
  with workdir.claimed(where, about):
    trained, seconds = _played(config, where)
    cells = _filled(rows, columns, where)
    return suite.concluded(
      cells,
      rows,
      {name: config.titles.get(name, name) for name in columns},
      config.baseline,
      seconds,
      where,
      title=config.title,
      sections={name: found.workdir for name, found in trained.items()},
    )


def _rows(config: ConfigDict) -> dict[str, Row]:
  """The students, finished workdirs among them."""
  found = {
    name: resolve.construct(
      Row, config.students[name].to_dict(), f"students.{name}"
    )
    for name in config.rows
  }
  for path in config.workdirs:
    found[path] = Row(Path(path).name, path, networks.recipe_of(path))
  if config.baseline not in found:
    raise ValueError(
      f"config.baseline is {config.baseline!r}; it must be one of the rows "
      f"{list(found)}"
    )
  return found


def _transfer(wanted: ConfigDict) -> ConfigDict:
  """The config of a transfer, or of the file that it names."""
  return config_lib.load(wanted.config) if "config" in wanted else wanted


def _played(
  config: ConfigDict, where: Path
) -> tuple[dict[str, pretrain.Result], dict[str, float]]:
  """Runs one after the other: those that trained a network, all seconds."""
  trained, seconds = {}, {}
  for name in config.order:
    fields, folder = config.runs[name], where / name
    if fields.teacher.weights.partition("/")[0] in config.order:
      fields.teacher.weights = str(where / fields.teacher.weights)
    summary.say(f"\n--- {name} ---")
    start = time.monotonic()
    found = resolve.symbol("tasks", fields.task, "run")(fields, folder)
    seconds[name] = time.monotonic() - start
    if isinstance(found, pretrain.Result):
      trained[name] = found
      _check(name, found.metrics, config.least.to_dict())
  return trained, seconds


def _check(
  name: str, figures: Mapping[str, float], least: Mapping[str, float]
) -> None:
  """Whether a network has learned enough to teach.

  Raises:
    ValueError: it has not.
  """
  if name not in least:
    return
  found = figures["eval/accuracy"]
  said = f"{name}: accuracy {100 * found:.1f} % on test images of its own task"
  summary.say(said)
  if found < least[name]:
    raise ValueError(
      f"{said}, less than the {100 * least[name]:.0f} % asked for: what it "
      f"would teach is worth little. Train it longer or at another rate "
      f"(config.runs.{name}), or lower --config.least.{name}"
    )


def _filled(
  rows: Mapping[str, Row], columns: Mapping[str, ConfigDict], where: Path
) -> dict[str, dict[str, dict[str, Any]]]:
  """What every cell gave, {row: {column: ...}}; some cells are impossible."""
  plans: dict[str, Plan] = {}
  cells: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in rows}
  for column, base in columns.items():
    for name, row in rows.items():
      if row.pixels and base.task != "classify":
        continue
      folder = where / "transfers" / column / name.replace("/", "_")
      cells[name][column] = _cell(base, row, where, folder, plans)
      summary.say(suite.line(f"{row.title}, {column}", cells[name][column]))
  return cells


def _cell(
  base: ConfigDict,
  row: Row,
  where: Path,
  folder: Path,
  plans: dict[str, Plan],
) -> dict[str, Any]:
  """Runs a transfer, or reads what it gave."""
  config = _filled_in(base, row, where)
  known = results.read(folder)
  if known is not None:
    return known
  with workdir.claimed(folder, config.to_dict()):
    plan = _plan(config, folder, plans)
    if row.pixels:
      return suite.pixel_classifier(plan, folder)
    conclude = resolve.symbol("running", config.task, "conclude")
    return conclude(plan, folder)


def _filled_in(base: ConfigDict, row: Row, where: Path) -> ConfigDict:
  """The config of a cell."""
  config = ConfigDict(base.to_dict())
  config.init_from = row.init_from
  if (where / row.init_from).is_dir() and row.init_from:
    config.init_from = str(where / row.init_from)
  if row.student:
    overrides = {**row.student["overrides"], **config.student.overrides}
    with config.unlocked():
      config.student = ConfigDict(
        {"name": row.student["name"], "overrides": overrides}
      )
  if row.trains:
    config.transfer.trains = row.trains
  return config


def _plan(config: ConfigDict, folder: Path, plans: dict[str, Plan]) -> Plan:
  """The plan of a cell; those that only start elsewhere share their steps."""
  fields = config.to_dict()
  key = json.dumps({**fields, "init_from": ""}, sort_keys=True, default=str)
  build = resolve.symbol("build", config.task, "plan")
  if key not in plans:
    plans[key] = build(config, folder)
  start = resolve.symbol("build", config.task, "initial")(config)
  known = plans[key]
  return dataclasses.replace(
    known,
    experiment=dataclasses.replace(known.experiment, initial=start),
    start=config.init_from or "nothing",
  )
