"""The runs of a transfer: a search for the rate, then those that count.

A run has a folder in `workdir/trials`, with the files of any other run. Once
it is finished its result.json says what came out, and its checkpoints go: the
same command takes up an unfinished transfer where it was left. The network of
the first seed is copied to the workdir, where others look for a run's student.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kd_jax import disk, workdir
from kd_jax.buckets import spool
from kd_jax.report import metrics
from kd_jax.report.run import summary, throughput
from kd_jax.running import abreast, training
from kd_jax.train.bucket import checkpoints as bucket_checkpoints
from kd_jax.transfer.plan import Plan, Trial
from kd_jax.transfer.protocol import best
from kd_jax.types import Variables

RESULT = "result.json"
NETWORK = ("student", "heads")  # folders, see `transfer.files`
Finish = Callable[[Variables, Path], None]
"""Is given the weights of a run that counts, on the host, and its folder."""


@dataclasses.dataclass(frozen=True)
class Finished:
  """What came out of a run.

  Attributes:
    trial: which it was.
    figures: {name: value} of its last weights.
    best: {name: value} of the evaluation where the plan's figure was highest.
    seconds: that it took, since it was last started.
  """

  trial: Trial
  figures: Mapping[str, float]
  best: Mapping[str, float]
  seconds: float


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came out of a transfer.

  Attributes:
    figure: the name of the figure that counts.
    rate: the chosen learning rate.
    search: {rate: mean figure on held-out images}; {} without a search.
    runs: those that count, in the order of the seeds.
    best_test: whether the best evaluation on the test images counts, and not
      the last.
  """

  figure: str
  rate: float
  search: Mapping[float, float]
  runs: Sequence[Finished]
  best_test: bool

  def values(self, name: str = "") -> list[float]:
    """A figure of every seed; '' is the one that counts."""
    name = name or self.figure
    runs = self.runs
    return [(r.best if self.best_test else r.figures)[name] for r in runs]


def run(plan: Plan, where: Path, finish: Finish) -> Outcome:
  """Runs, or goes on with, all runs of a transfer.

  Args:
    plan: of the transfer.
    where: its folder.
    finish: called once for every run that counts.

  Raises:
    ValueError: what only shows once images are read.
    Stopped: SIGTERM; the state is saved.
  """

  def one(trial: Trial) -> Finished:
    return _run(plan, trial, where / "trials" / trial.name, finish)

  search = _each(
    plan, one, [Trial(*pair, search=True) for pair in plan.protocol.search()]
  )
  known = {(f.trial.rate, f.trial.seed): _figure(plan, f) for f in search}
  rates = (best(known),) if known else plan.rates
  seeds = plan.protocol.seeds
  runs = _each(plan, one, [Trial(r, seed) for r in rates for seed in seeds])
  if len(rates) > 1:  # chosen on the test images, as the authors did
    rate = best({(f.trial.rate, f.trial.seed): _best(plan, f) for f in runs})
    runs = [f for f in runs if f.trial.rate == rate]
  _keep(where / "trials" / runs[0].trial.name, where)
  means = {
    rate: sum(v for (r, _), v in known.items() if r == rate)
    / plan.protocol.search_seeds
    for rate, _ in known
  }
  return Outcome(
    figure=plan.judge.figure,
    rate=runs[0].trial.rate,
    search=means,
    runs=runs,
    best_test=plan.protocol.select == "best_test",
  )


def _each(
  plan: Plan, one: Callable[[Trial], Finished], trials: Sequence[Trial]
) -> list[Finished]:
  """What every run gives; some run side by side."""
  jobs = [functools.partial(one, trial) for trial in trials]
  compiled = bool(plan.experiment.programs)
  # The very first run compiles what all others share.
  first = [] if compiled else [job() for job in jobs[:1]]
  rest = jobs[len(first) :]
  trackers = plan.experiment.schedule.trackers
  at_once = abreast.allowed(plan.protocol.at_once, trackers)
  return first + abreast.results(rest, at_once)


def announce(plan: Plan, where: Path, *, dry: bool) -> bool:
  """Shows what is about to run, and writes summary.json.

  Args:
    plan: of the transfer.
    where: its folder.
    dry: also measure reading and computing, and go no further.

  Returns:
    Whether to go on.
  """
  about = {
    **summary.about(plan.experiment, where),
    "starts_from": plan.start,
    "test_images": len(plan.test),
    "held_out_images": len(plan.parts.held),
    "rates": ", ".join(f"{rate:g}" for rate in plan.rates),
    "runs": plan.num_runs,
  }
  if jax.process_index() == 0:
    summary.show(about, plan.experiment.specs)
    workdir.write(where / "summary.json", json.dumps(about, default=str))
  if dry:
    summary.say(str(throughput.measure(plan.experiment)))
  return not dry


def _keep(trial: Path, where: Path) -> None:
  """Copies the network of a run, and its heads, to the workdir."""
  if jax.process_index():
    return
  for path in (p for name in NETWORK for p in (trial / name).glob("*")):
    copy = where / path.relative_to(trial)
    copy.parent.mkdir(exist_ok=True)
    disk.write(copy, path.read_bytes())


def _figure(plan: Plan, found: Finished) -> float:
  return found.figures[plan.judge.figure]


def _best(plan: Plan, found: Finished) -> float:
  return found.best[plan.judge.figure]


def _run(plan: Plan, trial: Trial, where: Path, finish: Finish) -> Finished:
  """A run of its own, or what it left when it was finished."""
  path = where / RESULT
  if not path.exists():
    start = time.monotonic()
    experiment = plan.of(trial)
    state = training.fit(experiment, where, brief=True)
    if not trial.search:
      found = training.host_variables(experiment, state)
      kept = plan.refined(found, experiment.inputs)
      finish(jax.tree.map(np.asarray, kept), where)
    if jax.process_index() == 0:
      result = _result(plan.judge.figure, trial, where)
      result["seconds"] = time.monotonic() - start
      workdir.write(path, json.dumps(result))
  workdir.together(f"end of {trial.name}", where)
  if jax.process_index() == 0:
    shutil.rmtree(where / "checkpoints", ignore_errors=True)
    bucket_checkpoints.discard(where / "checkpoints")
  found = read(path)
  value = found.figures[plan.judge.figure]
  whose = where.parents[1].name  # another transfer may run beside this one
  summary.say(
    f"  {whose}: {trial.name}: {plan.judge.figure} {100 * value:.1f} %"
  )
  return found


def _result(figure: str, trial: Trial, where: Path) -> dict[str, Any]:
  """What result.json holds, from the metrics that the run has written."""
  every = [_evals(line) for line in metrics.read(where)]
  every = [line for line in every if line]
  return {
    "trial": dataclasses.asdict(trial),
    "figures": every[-1],
    "best": max(every, key=lambda line: line[figure]),
  }


def _evals(line: Mapping[str, float]) -> dict[str, float]:
  found = {k: v for k, v in line.items() if k.startswith("eval/")}
  return {k.removeprefix("eval/"): v for k, v in found.items()}


def read(path: Path) -> Finished:
  """What a finished run wrote.

  Raises:
    ValueError: the file is damaged.
  """
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
    return Finished(**{**found, "trial": Trial(**found["trial"])})
  except (ValueError, TypeError, KeyError) as error:
    raise ValueError(
      f"{spool.address(path)} is damaged ({error}); delete it, and the run is "
      "repeated"
    ) from error
