"""From a config to a transfer protocol."""

from __future__ import annotations

import jax
from ml_collections import ConfigDict

import kd_jax
from kd_jax.build import images, networks, training
from kd_jax.data import pipeline
from kd_jax.interfaces import DataSource
from kd_jax.train import mesh as mesh_lib
from kd_jax.transfer.finetune import Finetune


def finetune(config: ConfigDict) -> Finetune:
  """Fine-tuning on few labels; every seed has labelled images of its own.

  Args:
    config: see `finetune` in configs/quickstart.py.
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
