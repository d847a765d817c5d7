"""What a teacher's bank saves, holds, costs and loses.

  python -m benchmarks.bank [--parts step codec store input quickstart]

step: a training step with the teacher running beside the student ('online'),
with what it said coming from a bank, and of the student alone on labels, in
turns, on a batch that lies on the device. KDEP reads int8 directions, 'kl' the
top 5 classes. 'wall' ratios are medians over the rounds, 'cpu' ratios compare
minima of process time. codec: bytes of a crop. store: writing and reading
random rows of a bank on disk. input: views per second of the pipeline alone,
with and without a bank, for m crops of an image. quickstart: three students of
configs/quickstart.py:bank (minutes); the error of int8 is that of the targets
of its trained teacher, over all crops of the first pass.

Figures of an idle 2-core CPU are in docs/bank.md; no accelerator was measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import kd_jax
from benchmarks import _command_line
from benchmarks import input as input_lib
from benchmarks._contest import Run, Times, measure
from configs import quickstart
from configs.common import base
from kd_jax.align import basis as basis_lib
from kd_jax.align import pts, svd
from kd_jax.build import training
from kd_jax.codecs import aligned, full, hard, marginal, raw
from kd_jax.data import pipeline
from kd_jax.data.bank import Bank, Header, Writer
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.sources import folder
from kd_jax.interfaces import TeacherSource
from kd_jax.report import metrics
from kd_jax.tasks import suite
from kd_jax.teachers import bank as bank_source
from kd_jax.teachers import none, random
from kd_jax.train import loop
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.train.optim import Optim
from kd_jax.train.views import as_unit
from kd_jax.types import Batch

PARTS = ("step", "codec", "store", "input", "quickstart")
GEOMETRY = {"geometry": ((7,), "int16")}
CODECS = {
  "feature float32": raw.Codec(),
  "feature float16": raw.Codec(dtype="float16"),
  "aligned 512 float16": aligned.Codec(dtype="float16"),
  "aligned 512 int8": aligned.Codec(),
  "aligned 512 float8": aligned.Codec(dtype="float8_e4m3fn"),
  "full float32": full.Codec(),
  "full float16": full.Codec(dtype="float16"),
  "marginal top 10": marginal.Codec(top=10),
  "marginal top 5": marginal.Codec(top=5),
  "smoothing": marginal.Codec(top=1),
  "hard": hard.Codec(),
}
WIDTHS = {"feature": (2048,), "logits": (1000,)}


@dataclasses.dataclass(frozen=True)
class Contender:
  """A way to train the student.

  Attributes:
    losses: {term: weight}.
    method: file of kd_jax/methods.
    source: the teacher.
    teacher: its variables, or the constants of a codec.
    stored: what a bank brings with the batch.
  """

  losses: Mapping[str, float]
  method: str
  source: TeacherSource
  teacher: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  stored: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def contenders(
  teacher: str, width: int, image: np.ndarray
) -> tuple[dict[str, Contender], Mapping[str, np.ndarray]]:
  """({name: contender}, basis) of an untrained teacher.

  Args:
    teacher: name of the network.
    width: of the student's feature.
    image: (n, h, w, 3) uint8.
  """
  source, variables = random.load(teacher, "", {})
  apply = jax.jit(
    lambda v, x: dict(source.model.apply(v, as_unit(x), train=False))
  )
  taps = jax.device_get(apply(variables, image))
  taps = {name: taps[name] for name in ("feature", "logits")}
  dim = taps["feature"].shape[-1]
  artifact = basis_lib.placeholder(dim=dim, width=width)
  found = {
    "supervised": Contender({"ce": 1.0}, "supervised", none.load("", "", {})[0])
  }
  terms = {
    "kdep": ("feature", aligned.Codec(min(width, dim))),
    "kl": ("kl", marginal.Codec()),
  }
  for name, (term, codec) in terms.items():
    constants = codec.constants(artifact, taps)
    stored = codec.encode(
      constants, {k: jnp.asarray(x) for k, x in taps.items()}
    )
    widths = tuple((k, taps[k].shape[1:]) for k in codec.taps)
    reader = bank_source.Source(Bank(""), codec, widths)
    losses = {term: 1.0}
    found[f"{name} online"] = Contender(losses, "kdep", source, variables)
    found[f"{name} bank"] = Contender(
      losses, "kdep", reader, constants, jax.device_get(stored)
    )
  return found, artifact


def stepper(
  student: str, one: Contender, artifact: Mapping[str, Any]
) -> Callable[[Batch], Any]:
  """The package's own train step for a contender: batch -> its total loss."""
  config, mesh = base(), mesh_lib.make_mesh()
  config.method = ConfigDict({"name": one.method})
  config.losses = ConfigDict(dict(one.losses))
  phase = training.method(config).phases()[0]
  tx = Optim(name="sgd", lr=0.01).transform(1000)
  source, variables = random.load(student, "", {})
  settings = training.settings(config, mesh, Preprocess())
  step = step_lib.make_train_step(source.model, one.source, phase, tx, settings)
  params = {"student": variables["params"]}
  stats = {"student": variables.get("batch_stats", {}), "method": {}}
  opt = tx.init(step_lib.trainable(params, phase))
  state = loop.placed_state(params, stats, opt, jax.random.key(0), settings)
  frozen = {"teacher": one.teacher, "artifact": artifact}
  frozen = mesh_lib.place(frozen, mesh)

  def advance(batch: Batch) -> Any:
    nonlocal state
    state, found = step(state, frozen, mesh_lib.put_batch(batch, mesh))
    return found["loss/total"]

  return advance


def train(
  student: str, one: Contender, artifact: Mapping[str, Any], image: np.ndarray
) -> Run:
  """Steps of a contender on one batch that lies on the device."""
  advance = stepper(student, one, artifact)
  labels = np.arange(len(image), dtype=np.int32)
  mask = np.ones(len(image), np.float32)
  batch = Batch(image, labels, mask, one.stored)
  batch = mesh_lib.put_batch(batch, mesh_lib.make_mesh())

  def run(steps: int) -> float:
    for _ in range(steps):
      loss = advance(batch)
    return float(loss)

  return run


def steps(args: argparse.Namespace) -> None:
  """Prints a line per contender, and ratios to those without a teacher."""
  width = kd_jax.create_model(args.student).num_features
  rng = np.random.default_rng(0)
  shape = (args.batch, args.size, args.size, 3)
  image = rng.integers(0, 256, shape, np.uint8)
  for teacher in args.teachers:
    ways, artifact = contenders(teacher, width, image)
    runs = {
      name: train(args.student, way, artifact, image)
      for name, way in ways.items()
    }
    for name, run in runs.items():
      if not np.isfinite(run(1)):
        raise ValueError(f"the loss of {name} is not finite")
    times = measure(runs, args.steps, args.rounds)
    print(
      f"\n{teacher} -> {args.student}, batch {args.batch} of {args.size}px\n"
      f"{'':24}steps/s  images/s    cpu ms  wall and cpu / supervised"
    )
    for name, each in times.items():
      middle = statistics.median(each.wall)
      wall, cpu = ratio(each, times["supervised"])
      print(
        f"{name:22}{1 / middle:9.2f}{args.batch / middle:10.1f}"
        f"{min(each.cpu) * 1e3:10.1f}{wall:10.3f}{cpu:8.3f}"
      )


def ratio(one: Times, other: Times) -> tuple[float, float]:
  """(median of the rounds by the clock, minima of processor time)."""
  rounds = (x / y for x, y in zip(one.wall, other.wall, strict=True))
  return statistics.median(rounds), min(one.cpu) / min(other.cpu)


def codecs(args: argparse.Namespace) -> None:
  """Prints bytes per crop, and gigabytes of ImageNet with 200 crops."""
  del args
  print(f"\n{'codec':24}bytes/crop  GB for ImageNet x 200 crops")
  for name, codec in CODECS.items():
    arrays = {**GEOMETRY, **codec.arrays(WIDTHS)}
    size = Header(1, 1, 16, arrays, {}).bytes_per_crop
    print(f"{name:22}{size:12}{size * 1_281_167 * 200 / 1e9:12.1f}")


def stores(args: argparse.Namespace) -> None:
  """Prints rows and megabytes per second of a bank on disk."""
  print(f"\n{args.records} rows of 1 crop, a shard of {args.shard} rows")
  print(f"{'':24}   rows/s    MB/s")
  for name in ("aligned 512 int8", "marginal top 5"):
    arrays = {**GEOMETRY, **CODECS[name].arrays(WIDTHS)}
    header = Header(args.records, 1, args.shard, arrays, {})
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
      writer = Writer(place, header, {})
      start = time.perf_counter()
      for shard in range(header.num_shards):
        writer.write(0, shard, made_up(header, len(header.rows(shard)), rng))
      report(f"{name}, write", header, args.records, start)
      bank, order = Bank(place), rng.permutation(args.records)
      start = time.perf_counter()
      for first in range(0, args.records, 256):
        ids = order[first : first + 256]
        bank.read(np.zeros(len(ids), int), ids)
      report(f"{name}, read 256", header, args.records, start)


def report(name: str, header: Header, rows: int, start: float) -> None:
  """Prints how fast `rows` went since `start`."""
  rate = rows / (time.perf_counter() - start)
  print(f"{name:26}{rate:10.0f}{rate * header.bytes_per_crop / 1e6:8.1f}")


def made_up(
  header: Header, rows: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """Arrays of a shard that nobody said."""
  return {
    name: rng.integers(0, 100, (rows, header.crops, *shape)).astype(dtype)
    for name, (shape, dtype) in header.arrays.items()
  }


def inputs(args: argparse.Namespace) -> None:
  """Prints views per second of batches with and without a bank."""
  print(f"\n{'':16}views/s    per core    with a bank    per core")
  with tempfile.TemporaryDirectory() as place:
    images = Path(place) / "images"
    images.mkdir()
    input_lib.photographs(images, args.images)
    source = folder.Source(str(images))
    for crops in (1, 4, 8):
      views = Preprocess(image_size=args.view, num_crops=crops)
      bank = empty_bank(f"{place}/{crops}", source, views)
      cells = ""
      for stored in (None, bank):
        wall, cpu = views_per_second(source, views, stored, args.seconds)
        cells += f"{wall:12.0f}{cpu:12.0f}"
      print(f"{crops} crops{cells}")


def empty_bank(place: str, source: Any, views: Preprocess) -> Bank:
  """A bank with the crops of an epoch and 512 bytes for each."""
  arrays = {**GEOMETRY, **CODECS["aligned 512 int8"].arrays(WIDTHS)}
  header = Header(len(source), views.num_crops, 8192, arrays, {"seed": 0})
  rows = header.rows(0)
  parts = pipeline.pass_batches(
    source, views, rows, number=0, batch_size=views.num_crops, seed=0
  )
  found = made_up(header, len(rows), np.random.default_rng(0))
  geometry = np.concatenate([part["geometry"] for part in parts])
  Writer(place, header, {}).write(
    0, 0, {**found, "geometry": geometry.astype(np.int16)}
  )
  return Bank(place)


def views_per_second(
  source: Any, views: Preprocess, bank: Bank | None, seconds: float
) -> tuple[float, float]:
  """(by the clock, by processor time) of `pipeline.train_batches`."""
  size = 8 * max(1, min(8, len(source) // 8))
  with pipeline.train_batches(
    source, views, batch_size=size, seed=0, bank=bank
  ) as stream:
    for _ in range(9):  # built before the clock starts
      next(stream)
    wall, cpu, made = time.perf_counter(), time.process_time(), 0
    while made == 0 or time.perf_counter() - wall < seconds:
      next(stream)
      made += size
    elapsed = time.perf_counter() - wall
    return made / elapsed, made / (time.process_time() - cpu)


def quickstarts(args: argparse.Namespace) -> None:
  """Prints how three students end, and what int8 loses."""
  with tempfile.TemporaryDirectory() as place:
    where = Path(args.workdir or place)
    suite.run(quickstart.get_config(args.variant), where)
    print(f"\nrelative error of int8: {int8_error(where):.2e}")
    for name in ("kdep", "stored", "stored8"):
      *_, last = metrics.read(where / name)
      found = {k: round(v, 4) for k, v in last.items() if k != "step"}
      print(f"{quickstart.TITLES.get(name, name):28} {found}")


def int8_error(where: Path) -> float:
  """Mean squared error of the targets over their mean square.

  Args:
    where: of a run of the quickstart; both banks hold the same crops.
  """
  exact, small = (
    Bank(str(where / name / "bank")) for name in ("bank", "bank8")
  )
  codec = aligned.Codec(small.header.arrays["directions"][0][0])
  basis = small.constants
  lost = power = 0.0
  for shard in range(exact.header.num_shards):
    feature = exact.shard(0, shard)["values"][:, 0]
    stored = {"directions": small.shard(0, shard)["directions"][:, 0]}
    back = codec.decode(basis, stored, {})["feature"]
    want, got = (
      pts.power_temperature(
        svd.project(x, basis["mean"], basis["basis"]), 0.1, 3.0
      )
      for x in (feature, back)
    )
    lost += float(jnp.sum((got - want) ** 2))
    power += float(jnp.sum(want**2))
  return lost / power


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """Parses the command line."""
  numbers = {"batch": 32, "size": 112, "steps": 2, "rounds": 7}
  numbers |= {"records": 32768, "shard": 8192, "images": 64, "view": 224}
  parser = _command_line.parser(__doc__, **numbers)
  parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
  teachers = ["resnet50", "vit_small_patch16_224"]
  parser.add_argument("--teachers", nargs="+", default=teachers)
  parser.add_argument("--student", default="resnet18")
  parser.add_argument("--seconds", type=float, default=5.0)
  parser.add_argument("--workdir", help="keeps the runs of the quickstart")
  parser.add_argument("--variant", default="bank", help="of the quickstart")
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the parts that are asked for."""
  args = arguments(argv)
  print(
    f"jax {jax.__version__} on {jax.devices()[0].device_kind} "
    f"({len(os.sched_getaffinity(0))} CPU cores)"
  )
  run = {
    "step": steps,
    "codec": codecs,
    "store": stores,
    "input": inputs,
    "quickstart": quickstarts,
  }
  for part in args.parts:
    run[part](args)


if __name__ == "__main__":
  main()
