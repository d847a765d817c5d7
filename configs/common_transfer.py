"""Fields that every transfer has: what a student is worth downstream."""

from ml_collections import ConfigDict

from configs.common import base


def transfer(task: str) -> ConfigDict:
  """An unlocked config of the task 'classify' or 'segment'."""
  config = base()
  for field in ("teacher", "method", "fit"):
    del config[field]
  config.task = task
  # A finished run, a file, a folder, a hub name; '': nothing (from scratch).
  config.init_from = ""
  config.test = ConfigDict({"name": "digits", "split": "test"})
  config.losses = ConfigDict({"ce": 1.0})
  config.optim.update({"power": 0.9, "head_lr": 1.0, "layer_decay": 1.0})
  config.eval = ConfigDict(
    {
      "every": 0,  # steps; 0: only at the end
      "batch_size": 256,
      "limit": 0,  # images; 0: all
      "pictures": 6,  # of the worst classes, or overlays, in the report
    }
  )
  # Fields of kd_jax.transfer.protocol.Protocol.
  config.transfer = ConfigDict(
    {
      "trains": "network",  # 'head': linear probe, or a frozen backbone
      "rates": (),  # learning rates to choose from; (): optim.lr
      "seeds": (0,),
      "shots": 0,  # labelled images per class (classify) or in all (segment)
      "holdout": 0.1,  # share of the training images that chooses the rate
      "search_seeds": 1,
      "select": "holdout",  # 'best_test': the paper's own protocol
      "evals": (),  # files of kd_jax/evals, on the features as they came
    }
  )
  return config
