"""Fine-tunes a pre-trained student for classification.

The whole network is trained with a new classifier; one compiled step serves
every initialisation and every seed.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float
from ml_collections import ConfigDict

import kd_jax
from kd_jax import trees
from kd_jax.build import images, networks, training
from kd_jax.data import pipeline
from kd_jax.interfaces import DataSource
from kd_jax.methods import supervised
from kd_jax.teachers import none
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.train.optim import Optim
from kd_jax.train.views import as_unit
from kd_jax.types import Array, Batch, TrainState, Variables


@dataclasses.dataclass(frozen=True)
class Finetune:
  """A fine-tuning protocol for one architecture.

  Attributes:
    model: the network, with the classifier of the new task.
    optim: optimizer.
    steps: updates per run.
    train: seed -> closeable endless iterator of labelled batches.
    test: a fresh closeable pass over labelled batches.
    mesh: devices.
  """

  model: nn.Module
  optim: Optim
  steps: int
  train: Callable[[int], Any]
  test: Callable[[], Any]
  mesh: jax.sharding.Mesh

  def __post_init__(self) -> None:
    phase = supervised.Method().phases()[0]
    settings = step_lib.Settings(weights={"ce": 1.0}, mesh=self.mesh)
    tx = self.optim.transform(self.steps)
    step = step_lib.make_train_step(
      self.model, none.Source(), phase, tx, settings
    )
    # Compiled once for all runs of this protocol.
    object.__setattr__(self, "_tx", tx)
    object.__setattr__(self, "_step", step)
    object.__setattr__(self, "_init", jax.jit(self._fresh))
    object.__setattr__(self, "_hits", jax.jit(self._count))

  def run(self, backbone: Variables | None, seed: int) -> float:
    """Top-1 accuracy on `test` after fine-tuning.

    Args:
      backbone: pre-trained variables; a classifier among them is dropped.
        None starts from scratch.
      seed: of the classifier, the order of the data and dropout.
    """
    state = self._state(backbone, seed)
    frozen: dict[str, Any] = {"teacher": {}, "artifact": {}}
    with contextlib.closing(self.train(seed)) as stream:
      for _ in range(self.steps):
        batch = mesh_lib.put_batch(next(stream), self.mesh)
        state, _ = self._step(state, frozen, batch)
    return self._accuracy(state)

  def _state(self, backbone: Variables | None, seed: int) -> TrainState:
    key = jax.random.key(seed)
    variables = self._init(key)
    params, stats = variables["params"], variables.get("batch_stats", {})
    if backbone is not None:
      kept = {k: v for k, v in backbone["params"].items() if k != "head"}
      params = trees.merge(params, kept)
      stats = trees.merge(stats, backbone.get("batch_stats", {}))
    leaves = trees.flatten({"student": params})
    state = TrainState(
      step=np.zeros((), np.int32),
      params={"student": params},
      stats={"student": stats, "method": {}},
      opt=self._tx.init(leaves),
      ema={},
      rng=jax.random.key_data(jax.random.fold_in(key, 1)),
    )
    return mesh_lib.place(state, self.mesh)

  def _accuracy(self, state: TrainState) -> float:
    variables = {
      "params": state.params["student"],
      "batch_stats": state.stats["student"],
    }
    hits = np.zeros(2)
    with contextlib.closing(self.test()) as stream:
      for local in stream:
        batch = mesh_lib.put_batch(local, self.mesh)
        hits += np.asarray(self._hits(variables, batch))
    return float(hits[0] / hits[1])

  def _fresh(self, key: Array) -> Variables:
    image = jnp.zeros((1, *self.model.example_size, 3))
    return self.model.init(key, image, train=False)

  def _count(self, variables: Variables, batch: Batch) -> Float[Array, " 2"]:
    taps = self.model.apply(variables, as_unit(batch.image), train=False)
    hit = jnp.argmax(taps["logits"], -1) == batch.label
    return jnp.stack([jnp.sum(hit * batch.mask), jnp.sum(batch.mask)])


def finetune(config: ConfigDict) -> Finetune:
  """Fine-tuning on few labels; every seed has labelled images of its own.

  Args:
    config: see `finetune` in benchmarks/_digits.py.
  """
  train, count = config.train.to_dict(), config.labels
  test = images.source(config.test.to_dict())
  views = images.preprocess(config.preprocess.to_dict())
  overrides = networks.model_fields(config.student.overrides.to_dict())
  batch_size, eval_batch_size = config.batch_size, config.eval_batch_size

  def labelled(seed: int) -> DataSource:
    first = count * seed
    split = f"{train['split']}[{first}:{first + count}]"
    return images.source({**train, "split": split})

  return Finetune(
    model=kd_jax.create_model(config.student.name, **overrides),
    optim=training.optim(config.optim.to_dict()),
    steps=config.steps,
    train=lambda seed: pipeline.train_batches(
      labelled(seed), views, batch_size=batch_size, seed=seed
    ),
    test=lambda: pipeline.eval_batches(test, views, batch_size=eval_batch_size),
    mesh=mesh_lib.make_mesh(jax.devices()[:1]),
  )
