"""What every transfer has: what a student is worth downstream."""

from ml_collections import ConfigDict

from configs.common import base, choose

# Set with student.overrides: images as they are, in [0, 1].
RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

RESNET, MOBILENET = "resnet18", "mobilenetv2_100"
VIT = "vit_small_patch16_224"

# Networks of a few channels, for `:smoke`.
TINY = {
  RESNET: {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "stem_width": 8},
  MOBILENET: {"channel_multiplier": 0.1, "depth_multiplier": 0.1},
  VIT: {
    "embed_dim": 24,
    "depth": 4,
    "num_heads": 2,
    "img_size": 32,
    "patch_size": 8,
  },
}


def transfer(task: str) -> ConfigDict:
  """An unlocked config of the task 'classify', 'segment' or 'detect'."""
  config = base()
  for field in ("teacher", "method", "fit", "mesh"):
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
      "figure": "top1",  # what counts; or 'mean_per_class'
    }
  )
  if task == "segment":
    _segments(config)
  if task == "detect":
    _detects(config)
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
      "at_once": 1,  # runs side by side; 2 suits small networks on a CPU
    }
  )
  return config


def _segments(config: ConfigDict) -> None:
  """Fields that only segmentation has."""
  config.losses.aux = 0.0  # of the auxiliary head
  # Files of kd_jax/transfer/heads; aux.name='': no auxiliary one.
  config.head = ConfigDict({"name": "fpn"})
  config.aux = ConfigDict({"name": ""})
  del config.eval["figure"]  # mean IoU
  config.eval.mirror = True  # windows are seen mirrored as well


def _detects(config: ConfigDict) -> None:
  """Fields that only detection has."""
  config.losses = ConfigDict(
    {"rpn_class": 1.0, "rpn_box": 1.0, "class": 1.0, "box": 1.0, "mask": 0.0}
  )
  # A file of kd_jax/transfer/detection/forms, with its fields and those of
  # kd_jax.transfer.detection.detector.Detector.
  config.detector = ConfigDict({"name": "fpn"})
  config.eval.rules = "coco"  # or 'voc2007', 'voc'
  config.eval.figure = "ap"  # or 'ap50', ..., 'mask_ap'
  config.eval.precise_batches = 200  # where detector.norm is 'precise'


def paper_protocol(config: ConfigDict, every: int) -> None:
  """Counts the best evaluation on the test images, every so many steps."""
  config.transfer.update({"select": "best_test", "rates": ()})
  config.eval.every = every


def transformer(config: ConfigDict, epochs: int, rates: tuple) -> None:
  """What plain transformers are fine-tuned with; no protocol of KDEP's.

  AdamW with rates that fall by a factor per block, as BEiT (arXiv:2106.08254)
  has it, stochastic depth and a warm-up of 5 epochs; the numbers are ours.

  Args:
    config: its steps are those of `epochs`.
    epochs: in all.
    rates: to choose from.
  """
  config.student = ConfigDict(
    {"name": VIT, "overrides": {"drop_path_rate": 0.1}}
  )
  config.optim.update(
    {
      "name": "adamw",
      "lr": rates[0],
      "weight_decay": 0.05,
      "decay_all": False,  # timm's rule
      "layer_decay": 0.75,
      "schedule": "whole_cosine",
      "warmup": max(5 * config.steps // epochs, 1),
      "clip_norm": 1.0,
    }
  )
  config.ema_decay = 0.999
  config.transfer.rates = rates


def small(config: ConfigDict) -> None:
  """A smoke run's student and numbers; the data are for the caller."""
  config.update({"steps": 4, "batch_size": 8, "log_every": 1})
  config.checkpoint.every = 2
  config.optim.decay_every = 2
  config.optim.warmup = min(config.optim.warmup, 1)
  config.student.overrides.update(TINY[config.student.name])
  config.eval.update({"batch_size": 16, "pictures": 2})
  if config.eval.every:
    config.eval.every = 2
  config.transfer.update({"seeds": (0, 1), "holdout": 0.25})
  config.transfer.rates = config.transfer.rates[:2]


def folder(place: str, *, exif_rotation: bool = False) -> ConfigDict:
  """Images in one folder per class; photos as they are stored, or upright."""
  fields = {"name": "folder", "dir": place, "exif_rotation": exif_rotation}
  return ConfigDict(fields)


def tfds(dataset: str, split: str) -> ConfigDict:
  """A data set as TensorFlow Datasets prepares it; see docs/data.md."""
  return ConfigDict({"name": "tfds", "dataset": dataset, "split": split})


def split(variant: str, allowed: tuple[str, ...]) -> tuple[bool, str]:
  """'smoke_vit' is (True, 'vit'), 'vit' is (False, 'vit')."""
  tiny = tuple("smoke" + f"_{name}" * bool(name) for name in allowed)
  choose(variant, (*allowed, *tiny))
  return variant in tiny, variant.removeprefix("smoke").removeprefix("_")
