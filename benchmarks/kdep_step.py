"""One KDEP training step here, against the same work in PyTorch.

python -m benchmarks.kdep_step [--teacher resnet50] [--student resnet18]

First it checks that both sides compute the same (losses and weight updates),
then it times them in turns. 'teacher' is the teacher's forward pass alone,
'supervised' a plain step of the same student on labels. The batch already lies
on the device: no input pipeline is timed. 'wall' ratios are medians over the
rounds, 'cpu' ratios compare minima of process time.

docs/speed.md has the figures of four such steps, from `benchmarks.pace`. Not
pinned, on a busy machine, PyTorch's own figures varied 15-fold (a run said
0.62): pin both to a core. bfloat16 was checked but not timed; torch.compile and
GPUs have not been run. Both sides keep freed memory, as runs on CPUs do
(`kd_jax.main.keep_memory`), which PyTorch alone would not.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import kd_jax
from benchmarks import _command_line, torch_step
from benchmarks._contest import (
  KDEP,
  SUPERVISED,
  TEACHER,
  TOLERANCE,
  TORCH,
  Run,
  Weights,
  check,
  measure,
  table,
)
from configs.common import base
from kd_jax.build import networks, training
from kd_jax.convert import from_timm, rules, to_timm
from kd_jax.data.preprocess import Preprocess
from kd_jax.main import keep_memory
from kd_jax.models.backbone import Backbone
from kd_jax.teachers import online
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.train.optim import Optim
from kd_jax.train.views import as_unit
from kd_jax.types import Batch, TrainState


@dataclasses.dataclass(frozen=True)
class Work:
  """What both sides compute with.

  Attributes:
    config: of the KDEP run.
    source: the teacher.
    teacher: its variables.
    student: the network that learns.
    weights: {'teacher': ..., 'student': ...}, timm's tensors.
    artifact: mean and orthonormal directions, as a fit would store them.
    image: (n, h, w, 3) uint8.
  """

  config: ConfigDict
  source: online.Source
  teacher: Mapping[str, Any]
  student: Backbone
  weights: Mapping[str, Mapping[str, np.ndarray]]
  artifact: Mapping[str, np.ndarray]
  image: np.ndarray


def prepare(args: argparse.Namespace) -> Work:
  """Random weights, directions and images, the same in every run."""
  config = base()
  config.dtype, config.batch_size = args.dtype, args.batch
  config.teacher.name, config.student.name = args.teacher, args.student
  config.optim.update({"lr": 0.05, "weight_decay": 5e-4})
  student = networks.student(config)
  weights = {
    "teacher": random_weights(kd_jax.create_model(args.teacher)),
    "student": random_weights(student),
  }
  source, teacher = online.load(
    args.teacher, weights["teacher"], {"dtype": args.dtype}
  )
  rng = np.random.default_rng(1)
  width, dim = student.num_features, source.model.num_features
  kept = min(width, dim)
  basis = np.linalg.qr(rng.standard_normal((dim, kept), np.float32))[0]
  artifact = {
    "mean": rng.standard_normal(dim, np.float32),
    "basis": basis,
    "singular_values": np.ones(kept, np.float32),
    "channel_variance": np.ones(dim, np.float32),
  }
  shape = (args.batch, args.size, args.size, 3)
  image = rng.integers(0, 256, shape, np.uint8)
  return Work(config, source, teacher, student, weights, artifact, image)


def random_weights(model: Backbone) -> dict[str, np.ndarray]:
  """Timm's tensors of `model`: N(0, 2 / fan_in); norms are the identity."""
  rng = np.random.default_rng(0)
  state = {}
  for name, entry in rules.entries(model).items():
    if len(entry.shape) > 1:
      std = (2 / np.prod(entry.shape[1:])) ** 0.5
      value = rng.standard_normal(entry.shape, np.float32) * np.float32(std)
    else:
      one = entry.path.endswith(("scale", "var", "gamma"))
      value = np.full(entry.shape, one, np.float32)
    state[name] = value
  return state


def train(work: Work, config: ConfigDict) -> tuple[Run, Weights]:
  """The package's own train step for `config`, and what it has learned."""
  mesh = mesh_lib.make_mesh()
  phase = training.method(config).phases()[0]
  tx = Optim(**config.optim).transform(config.steps)
  step = step_lib.make_train_step(
    work.student,
    work.source,
    phase,
    tx,
    training.settings(config, mesh, Preprocess()),
  )
  variables = from_timm(work.student, work.weights["student"])
  params = {"student": variables["params"]}
  fresh = TrainState(
    step=np.zeros((), np.int32),
    params=params,
    stats={"student": variables.get("batch_stats", {}), "method": {}},
    opt=tx.init(step_lib.trainable(params, phase)),
    ema={},
    rng=jax.random.key_data(jax.random.key(0)),
  )
  state = mesh_lib.place(fresh, mesh)
  frozen, batch = on_device(work, mesh)

  def run(steps: int) -> float:
    nonlocal state
    for _ in range(steps):
      state, found = step(state, frozen, batch)
    return float(found["loss/total"])

  def weights() -> dict[str, np.ndarray]:
    variables = {
      "params": state.params["student"],
      "batch_stats": state.stats["student"],
    }
    return to_timm(work.student, variables)

  return run, weights


def teach(work: Work) -> Run:
  """The teacher's forward pass to the feature, alone."""

  @jax.jit
  def forward(frozen, batch):
    batch = batch.replace(image=as_unit(batch.image))
    return work.source(frozen, batch).taps["feature"].mean()

  frozen, batch = on_device(work, mesh_lib.make_mesh())

  def run(steps: int) -> float:
    for _ in range(steps):
      found = forward(frozen, batch)
    return float(found)

  return run


def on_device(work: Work, mesh: jax.sharding.Mesh) -> tuple[Any, Batch]:
  """(frozen, batch) where the step reads them; neither is donated."""
  rows = len(work.image)
  batch = Batch(
    image=work.image,
    label=np.arange(rows, dtype=np.int32) % work.student.num_classes,
    mask=np.ones(rows, np.float32),
  )
  frozen = {"teacher": work.teacher, "artifact": work.artifact}
  return mesh_lib.place(frozen, mesh), mesh_lib.put_batch(batch, mesh)


def supervised(config: ConfigDict) -> ConfigDict:
  """The same run on labels, without a teacher's loss."""
  config = ConfigDict(config)
  config.method = ConfigDict({"name": "supervised"})
  config.losses = ConfigDict({"ce": 1.0})
  return config


def learned(work: Work, weights: Weights) -> dict[str, np.ndarray]:
  """{tensor: its change so far} of the convolutions, in timm's layout.

  Left out: the classifier, which is not trained, and biases whose gradient is
  zero but for rounding because another normalisation follows.
  """
  before, head = work.weights["student"], rules.head_names(work.student)
  return {
    name: value - before[name]
    for name, value in weights().items()
    if value.ndim > 1 and name not in head
  }


def memory() -> str:
  """Peak memory of the accelerator so far, as the runtime counts it."""
  stats = jax.devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" not in stats:
    return f"not reported by {jax.default_backend()}"
  return f"{stats['peak_bytes_in_use'] / 2**20:.0f} MiB"


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """Parses the command line; the defaults depend on the backend."""
  cpu = jax.default_backend() == "cpu"
  numbers = {"batch": 32, "size": 112, "steps": 2, "rounds": 7}
  parser = _command_line.parser(__doc__, **numbers)
  parser.add_argument("--teacher", default="resnet50")
  parser.add_argument("--student", default="resnet18")
  parser.add_argument("--method", choices=(KDEP, SUPERVISED), default=KDEP)
  parser.add_argument(
    "--dtype", choices=TOLERANCE, default="float32" if cpu else "bfloat16"
  )
  parser.add_argument("--torch", choices=("auto", "off"), default="auto")
  parser.add_argument(
    "--torch-compile", action=argparse.BooleanOptionalAction, default=not cpu
  )
  parser.add_argument(
    "--check", action="store_true", help="compare first losses, then end"
  )
  return parser.parse_args(argv)


def contenders(
  args: argparse.Namespace, work: Work
) -> tuple[dict[str, Run], dict[str, Weights], str]:
  """({name: run}, {name: what it learns}, a note on PyTorch)."""
  runs, weights, note = {}, {}, "PyTorch is switched off"
  method = args.method
  config = work.config if method == KDEP else supervised(work.config)
  runs[method], weights[method] = train(work, config)
  if args.torch == "auto":
    theirs, tensors, note = torch_step.contenders(
      work, method, compiled=args.torch_compile
    )
    runs |= {TORCH + name: run for name, run in theirs.items()}
    weights[TORCH + method] = tensors
  if not args.check and method == KDEP:
    runs[TEACHER] = teach(work)
    runs[SUPERVISED], _ = train(work, supervised(work.config))
  return runs, weights, note


def ready(
  args: argparse.Namespace,
) -> tuple[dict[str, Run], dict[str, float]]:
  """Builds and checks all contenders.

  Args:
    args: of the command line.

  Returns:
    ({name: run}, {name: seconds of the first step}).

  Raises:
    ValueError: the two sides do not compute the same.
  """
  work = prepare(args)
  runs, weights, note = contenders(args, work)
  taught = f"{args.teacher} -> " if args.method == KDEP else ""
  print(
    f"{taught}{args.student}, {args.method}, batch {args.batch} of "
    f"{args.size}px, {args.dtype}; jax {jax.__version__} on "
    f"{jax.devices()[0].device_kind} ({len(os.sched_getaffinity(0))} CPU "
    f"cores); {note}"
  )
  first, losses, updates = {}, {}, {}
  for name, run in runs.items():
    start = time.perf_counter()
    losses[name] = [run(1)]
    first[name] = time.perf_counter() - start
    if name in weights:
      updates[name] = learned(work, weights[name])
    losses[name].append(run(1))
    if name == args.method:
      print(f"peak device memory of {name}: {memory()}")
  if TORCH + args.method in runs:
    sides = (args.method, TORCH + args.method)
    pairs = ([values[side] for side in sides] for values in (losses, updates))
    print(check(*pairs, args.dtype))
  return runs, first


def main(argv: Sequence[str] | None = None) -> None:
  """Checks that both sides agree, times them and prints the table."""
  # Two frameworks share the device: neither may reserve most of it.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  keep_memory()
  args = arguments(argv)
  runs, first = ready(args)
  if not args.check:
    table(measure(runs, args.steps, args.rounds), first, args.batch)


if __name__ == "__main__":
  main()
