"""The whole story on a laptop: teacher, SVD, distillation, few-label transfer.

A teacher learns digits 0-4 with labels. Then a smaller student of another
width is pre-trained in two ways for the same number of steps: by KDEP from the
teacher on unlabelled images, and with the teacher's labelled ones. Both, and a
student from scratch, are fine-tuned on a few labelled images of digits 5-9.
Students may also learn from banks that the teacher has filled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import kd_jax
from kd_jax import resolve
from kd_jax.build import setup
from kd_jax.data import pipeline
from kd_jax.report import metrics
from kd_jax.report import page as page_lib
from kd_jax.tasks import pretrain
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import workdir
from kd_jax.train.optim import Optim
from kd_jax.transfer.classify import Finetune
from kd_jax.types import DataSource

HEADER = ("pre-training of the student", "labels", "accuracy", "seconds")
TITLE = "Accuracy on new classes after fine-tuning on few labels"


def run(config: ConfigDict, where: str | Path) -> dict[str, list[float]]:
  """Runs the story, prints its table and writes page.html.

  Returns:
    {kind of pre-training: accuracy of every seed}.

  Raises:
    ValueError: more than one process, or anything `pretrain` refuses.
  """
  if jax.process_count() > 1:
    raise ValueError(
      f"the quickstart runs in one process, not in {jax.process_count()}; "
      "start it with python -m kd_jax.main"
    )
  where = Path(where)
  workdir.claim(where, {"task": config.task, "seeds": list(config.seeds)})
  start = time.monotonic()
  runs: dict[str, Any] = {}
  seconds = {"scratch": 0.0}
  for name in config.order:
    fields = config.runs[name]
    fields.teacher.weights = str(where / fields.teacher.weights)
    print(f"\n--- {name} ---", flush=True)
    task = resolve.symbol("tasks", fields.task, "run")
    runs[name], seconds[name] = _timed(
      lambda task=task, fields=fields, name=name: task(fields, where / name)
    )
  trained = {
    name: found
    for name, found in runs.items()
    if isinstance(found, pretrain.Result)
  }
  transfer = finetune(config.finetune)
  kinds = {"scratch": None, **{k: r.variables for k, r in trained.items()}}
  kinds.pop("teacher")
  accuracy = {
    kind: [transfer.run(backbone, seed) for seed in config.seeds]
    for kind, backbone in kinds.items()
  }
  rows = [_row(config, kind, accuracy[kind], seconds) for kind in accuracy]
  note = (
    f"The teacher, which all students could share, took "
    f"{seconds['teacher']:.0f} seconds; "
    f"{time.monotonic() - start:.0f} seconds in all."
  )
  groups = {config.titles[kind][0]: accuracy[kind] for kind in accuracy}
  _show(where, rows, note, groups, trained)
  return accuracy


def finetune(config: ConfigDict) -> Finetune:
  """The transfer protocol; every seed has labelled images of its own."""
  test = setup.data(config.test)
  views = setup.preprocess(config)
  model = kd_jax.create_model(
    config.student.name, **setup.model_fields(config.student.overrides)
  )
  return Finetune(
    model=model,
    optim=Optim(**config.optim.to_dict()),
    steps=config.steps,
    train=lambda seed: pipeline.train_batches(
      labelled(config, seed), views, batch_size=config.batch_size, seed=seed
    ),
    test=lambda: pipeline.eval_batches(
      test, views, batch_size=config.eval_batch_size
    ),
    mesh=mesh_lib.make_mesh(jax.devices()[:1]),
  )


def labelled(config: ConfigDict, seed: int) -> DataSource:
  """The `config.labels` images that belong to a seed."""
  first = config.labels * seed
  split = f"{config.train.split}[{first}:{first + config.labels}]"
  return setup.data(ConfigDict({**config.train.to_dict(), "split": split}))


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
  start = time.monotonic()
  return work(), time.monotonic() - start


def _row(
  config: ConfigDict,
  kind: str,
  accuracy: list[float],
  seconds: Mapping[str, float],
) -> tuple[str, str, str, str]:
  mean, std = 100 * np.mean(accuracy), 100 * np.std(accuracy, ddof=1)
  title, labels = config.titles[kind]
  accuracy_text = f"{mean:.1f} ± {std:.1f} % ({len(accuracy)} seeds)"
  return title, labels, accuracy_text, f"{seconds[kind]:.0f}"


def _show(
  where: Path,
  rows: list[tuple[str, ...]],
  note: str,
  groups: Mapping[str, list[float]],
  runs: Mapping[str, pretrain.Result],
) -> None:
  table = metrics.columns([HEADER, *rows])
  print(f"\n{TITLE}\n\n{table}\n\n{note}", flush=True)
  page = page_lib.write_report(
    where,
    title="kd_jax quickstart",
    tables={TITLE: (HEADER, rows)},
    groups=groups,
    sections={name: result.workdir for name, result in runs.items()},
  )
  print(f"report: {page}", flush=True)
