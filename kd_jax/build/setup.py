"""From a config to the objects that the trainer works with."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

import kd_jax
from kd_jax import resolve, trees
from kd_jax.data import pipeline
from kd_jax.data.bank import Bank
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.reading import Reading
from kd_jax.models.backbone import Backbone
from kd_jax.report.skipped_images import SkipLog
from kd_jax.train import evaluate, statistics
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.train.views import Cut, Mix
from kd_jax.types import DataSource, Method, Phase, TeacherSource


@dataclasses.dataclass(frozen=True)
class Teaching:
  """The teacher's side of a run.

  Attributes:
    source: yields taps.
    variables: of the teacher network, {} if there is none.
    fingerprint: of network and variables.
  """

  source: TeacherSource
  variables: Mapping[str, Any]
  fingerprint: str

  @property
  def model(self) -> nn.Module | None:
    """The network behind the source, if there is one."""
    return getattr(self.source, "model", None)

  @property
  def viewer(self) -> Any:
    """Says how it wants images: the network, or the bank that it filled."""
    return self.model or self.source

  @property
  def bank(self) -> Bank | None:
    """What stores the taps, if no network runs."""
    return getattr(self.source, "bank", None)


def teaching(config: ConfigDict) -> Teaching:
  """Loads the teacher that `config.teacher` names."""
  wanted = config.teacher
  load = resolve.symbol("teachers", wanted.source, "load")
  overrides = {"dtype": config.dtype, **model_fields(wanted.overrides)}
  source, variables = load(wanted.name, wanted.weights, overrides)
  identity = getattr(source, "fingerprint", "") or statistics.identity(
    repr(source), trees.fingerprint(variables)
  )
  return Teaching(source, variables, identity)


def student(config: ConfigDict) -> Backbone:
  """The network that `config.student` names."""
  overrides = model_fields(config.student.overrides)
  return kd_jax.create_model(
    config.student.name, **{"dtype": config.dtype, **overrides}
  )


def model_fields(overrides: ConfigDict) -> dict[str, Any]:
  """Arguments of create_model; configs hold lists, modules want tuples."""
  return {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in overrides.to_dict().items()
  }


def method(config: ConfigDict) -> Method:
  """The method, with the loss terms that have a weight."""
  terms = tuple(k for k, weight in sorted(config.losses.items()) if weight)
  fields = {**config.method.to_dict(), "terms": terms}
  return resolve.build("methods", "Method", fields)


def settings(
  config: ConfigDict,
  mesh: jax.sharding.Mesh,
  views: Preprocess,
  classes: int = 0,
) -> step_lib.Settings:
  """What the train step needs.

  Args:
    config: of the run.
    mesh: devices.
    views: how images are prepared.
    classes: number of label classes of the data; 0 if there are none.
  """
  if not 0 <= config.ema_decay < 1:
    raise ValueError(f"ema_decay is {config.ema_decay}; it must be in [0, 1)")
  return step_lib.Settings(
    weights=config.losses.to_dict(),
    accum_steps=config.accum_steps,
    ema_decay=config.ema_decay,
    mesh=mesh,
    fsdp=config.fsdp,
    cut=cut(views),
    mix=resolve.construct(Mix, config.mix.to_dict(), "mix"),
    classes=classes,
    crops=views.num_crops,
  )


def cut(views: Preprocess) -> Cut:
  """How the step cuts views out of whole images, if it has to."""
  return Cut(views.image_size, views.train_interpolation)


def check_crops(
  config: ConfigDict, views: Preprocess, mesh: jax.sharding.Mesh
) -> None:
  """Whether the images of a batch can be shared out and mixed.

  Raises:
    ValueError: `batch_size` does not fit `num_crops`, the devices that crop,
      or the mixing of pairs.
  """
  unit = views.num_crops
  reasons = [f"{unit} crops of an image"]
  if views.canvas:
    unit *= mesh.size * config.accum_steps
    reasons.append(f"cropping on {mesh.size} devices")
  if max(config.mix.mixup, config.mix.cutmix) > 0:
    unit = np.lcm(unit, 2 * views.num_crops * config.accum_steps)
    reasons.append("mixing pairs of images")
  if config.batch_size % unit:
    raise ValueError(
      f"batch_size is {config.batch_size}; with {', '.join(reasons)} and "
      f"accum_steps={config.accum_steps} it must be a multiple of {unit}"
    )


def data(config: ConfigDict) -> DataSource:
  """The data source that a part of the config names."""
  return resolve.build("data.sources", "Source", config.to_dict())


def preprocess(config: ConfigDict, net: Any = None) -> Preprocess:
  """How images are prepared.

  Args:
    config: of the run.
    net: says how the evaluation view is resized where the config leaves it
      open; what does not say bicubically, the central .875 of the short side.
  """
  fields = config.preprocess.to_dict()
  fields["interpolation"] = fields["interpolation"] or getattr(
    net, "interpolation", "bicubic"
  )
  fields["crop_pct"] = fields["crop_pct"] or getattr(net, "crop_pct", 0.875)
  fields["crop_mode"] = fields.get("crop_mode") or getattr(
    net, "crop_mode", "center"
  )
  return resolve.construct(Preprocess, fields, "preprocess")


def train_stream(
  config: ConfigDict,
  source: DataSource,
  views: Preprocess,
  start: int,
  *,
  phase: Phase | None = None,
  on_skip: pipeline.Report | None = None,
  bank: Bank | None = None,
) -> pipeline.Batches:
  """Training batches from step `start` on, as `phase` wants them."""
  if phase is not None:
    views = dataclasses.replace(views, **dict(phase.data))
  return pipeline.train_batches(
    source,
    views,
    batch_size=config.batch_size,
    seed=config.seed,
    start_step=start,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    reading=Reading(
      config.input.workers, config.input.threads, config.input.prefetch
    ),
    on_skip=on_skip,
    bank=bank,
  )


def eval_stream(
  config: ConfigDict,
  source: DataSource,
  views: Preprocess,
  on_skip: pipeline.Report | None = None,
) -> pipeline.Batches:
  """One pass of evaluation batches."""
  return pipeline.eval_batches(
    source,
    views,
    batch_size=config.eval.batch_size,
    limit=config.eval.limit or None,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    on_skip=on_skip,
  )


def evaluator(
  config: ConfigDict,
  net: nn.Module,
  source: TeacherSource,
  how: Method,
  mesh: jax.sharding.Mesh,
  *,
  views: Preprocess,
  skips: SkipLog,
  judged: bool = False,
) -> evaluate.Evaluator:
  """What `config.eval` asks for.

  Args:
    config: of the run.
    net: the student.
    source: of the teacher's taps.
    how: the method.
    mesh: devices.
    views: how images are prepared.
    skips: where images that cannot be read are listed.
    judged: whether evaluations choose weights; then the method's metrics are
      of images that no eval reads: config.eval.judge, or the training data.

  Raises:
    ValueError: evals without two sets of labelled images to compare, or of a
      tap that is no vector per image.
  """
  mesh_lib.check_batch(config.eval.batch_size, mesh, field="eval.batch_size")
  names = (config.eval.train.name, config.eval.test.name)
  if config.eval.evals and not all(names):
    raise ValueError(
      f"the evals {config.eval.evals} compare two labelled sets; "
      f"config.eval.train.name and test.name are {names}. Name both, or "
      "switch them off with --config.eval.evals=()"
    )
  own = ConfigDict({"name": ""})
  wanted = (config.eval.train, config.eval.test)
  sets = [
    data(part if part.name else config.data)
    for part in (wanted if config.eval.evals else (own, own))
  ]
  for field, found in zip(("train", "test"), sets, strict=True):
    if config.eval.evals and not found.num_classes:
      raise ValueError(
        f"the evals {config.eval.evals} need labels, and config.eval.{field} "
        "has none. Use labelled data, or switch them off with "
        "--config.eval.evals=()"
      )
  judge = config.eval.judge if config.eval.judge.name else config.data
  sets.append(data(judge) if judged else sets[1])
  train, test, judge = (
    functools.partial(eval_stream, config, found, views, skips.report(found))
    for found in sets
  )
  return evaluate.Evaluator(
    student=net,
    source=source,
    method=how,
    mesh=mesh,
    train=train,
    test=test,
    judge=judge,
    online=getattr(source, "bank", None) is None,
    evals=tuple(config.eval.evals),
    tap=config.eval.tap,
  )


def artifact_path(config: ConfigDict, workdir: Path) -> Path:
  """Where the fitted basis is, or will be."""
  return Path(config.fit.artifact or workdir / "artifact.npz")


def fit_basis(
  config: ConfigDict,
  taught: Teaching,
  tap: str,
  source: DataSource,
  workdir: Path,
  mesh: jax.sharding.Mesh,
  skips: SkipLog,
) -> Any:
  """Loads the basis of a teacher tap, or fits it in one pass over the data."""
  views = preprocess(config, taught.viewer)
  frozen = {"teacher": mesh_lib.place(taught.variables, mesh), "artifact": {}}

  def fit(fingerprint: str) -> Any:
    with fit_batches(config, taught, source, views, skips) as batches:
      return statistics.fit(
        taught.source,
        frozen,
        tap,
        batches,
        mesh,
        fingerprint=fingerprint,
        cut=cut(views),
      )

  identity = fit_identity(config, taught, tap, source, views)
  return statistics.load_or_fit(artifact_path(config, workdir), identity, fit)


def fit_identity(
  config: ConfigDict,
  taught: Teaching,
  tap: str,
  source: DataSource,
  views: Preprocess,
) -> str:
  """The fingerprint of the statistics of a teacher tap."""
  return statistics.identity(
    taught.fingerprint,
    tap,
    source.fingerprint,
    views.fingerprint(),
    repr((config.fit.augment, config.fit.examples, config.seed)),
  )


@contextlib.contextmanager
def fit_batches(
  config: ConfigDict,
  taught: Teaching,
  source: DataSource,
  views: Preprocess,
  skips: SkipLog,
) -> Iterator[Iterator[Any]]:
  """The batches that statistics of the teacher are fitted on."""
  on_skip = skips.report(source)
  with _fit_stream(config, source, views, on_skip, taught.bank) as stream:
    count = _fit_batches(config, source, views, taught.bank)
    yield (next(stream) for _ in range(count))


def _fit_stream(
  config: ConfigDict,
  source: DataSource,
  views: Preprocess,
  on_skip: pipeline.Report,
  bank: Bank | None,
) -> pipeline.Batches:
  if config.fit.augment or bank is not None:
    return train_stream(config, source, views, 0, on_skip=on_skip, bank=bank)
  return pipeline.eval_batches(
    source,
    views,
    batch_size=config.batch_size,
    limit=config.fit.examples or None,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    on_skip=on_skip,
  )


def _fit_batches(
  config: ConfigDict, source: DataSource, views: Preprocess, bank: Bank | None
) -> int:
  """Training views come in whole batches, evaluation views are padded."""
  examples = min(config.fit.examples or len(source), len(source))
  if config.fit.augment or bank is not None:
    return max(examples * views.num_crops // config.batch_size, 1)
  return -(-examples // config.batch_size)
