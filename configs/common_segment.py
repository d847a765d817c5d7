"""KDEP's way to fine-tune on masks, and another for transformers."""

from ml_collections import ConfigDict

from configs.common_transfer import (
  MOBILENET,
  RESNET,
  paper_protocol,
  small,
  split,
  transfer,
  transformer,
)

VARIANTS = ("", "mnv2", "paper", "paper_mnv2", "vit")


def paper_segmentation(
  variant: str,
  data: tuple[ConfigDict, ConfigDict],
  views: dict,
  *,
  images: int,
  epochs: int,
  lr: tuple[float, float] = (0.01, 0.01),
  aux: tuple[float, float] = (0.4, 0.4),
  every: int,
) -> ConfigDict:
  """KDEP's protocol, with the rate chosen on held-out images or its own way.

  Source: github.com/CVMI-Lab/KDEP, src/semseg: crops of 512, batch 16, SGD,
  momentum .9, weight decay 1e-4, rate falling with the power .9, heads at 10
  times the rate. ResNet-18 with output stride 8 and the head of PSPNet.

  Args:
    variant: of `VARIANTS`, or a smoke run of one.
    data: all training images, and those that count.
    views: fields of kd_jax.data.dense.Dense that are other ones there.
    images: number of training images; an epoch leaves out the last batch
      where it is not full, as the authors' loader does.
    epochs: over them.
    lr: of ResNet-18 and MobileNetV2.
    aux: weight of the auxiliary loss, of the same two.
    every: epochs between evaluations of `:paper`.
  """
  tiny, kind = split(variant, VARIANTS)
  mobile = kind.endswith("mnv2")
  config = segmentation(views)
  config.steps = epochs * (images // 16)
  config.data, config.test = data
  if mobile:
    mobilenet(config, aux[1])
  else:
    resnet(config, aux[0])
  rate = lr[1] if mobile else lr[0]
  config.optim.lr = rate
  config.transfer.update({"seeds": (0, 1), "rates": (rate / 2, rate, 2 * rate)})
  if kind.startswith("paper"):
    paper_protocol(config, every=every * (images // 16))
  if kind == "vit":
    vit(config, epochs)
  return done(config, tiny)


def pairs(**fields) -> ConfigDict:
  """Two folders of images and masks; see docs/data.md."""
  return ConfigDict({"name": "pairs", **fields})


def segmentation(views: dict) -> ConfigDict:
  """An unlocked segmentation at 512 pixels by the authors' numbers.

  Args:
    views: fields of kd_jax.data.dense.Dense that differ from the authors'.
  """
  config = transfer("segment")
  config.batch_size = 16
  config.optim.update({"lr": 0.01, "weight_decay": 1e-4, "schedule": "poly"})
  config.optim.head_lr = 10.0
  config.preprocess = dense(512, **views)
  config.eval.batch_size = 8
  return config


def dense(image_size: int, **changes) -> ConfigDict:
  """Fields of kd_jax.data.dense.Dense, the authors' views by default."""
  fields = {
    "image_size": image_size,  # of crops, and of windows in evaluation
    "augment": "full",
    "scale": (0.5, 2.0),
    "ratio": (1.0, 1.0),
    "rotate": 10.0,
    "rotate_prob": 0.5,
    "blur_prob": 0.5,
    "blur_size": 5,
    "photometric": 1.0,
    "hflip": 0.5,
    "shift": 0,
    "long_side": 0,  # of images in evaluation; 0: as they are
    "scales": (1.0,),  # at which evaluation looks at them
    "eval_size": (),  # of the largest, resized; (): long_side, image_size
    "label_size": (),  # of the largest mask; (): eval_size
  }
  return ConfigDict({**fields, **changes})


def resnet(config: ConfigDict, aux: float) -> None:
  """ResNet-18 with dilation in the second convolutions, PSPNet's two heads."""
  overrides = {"output_stride": 8, "dilation_type": "conv2"}
  config.student = ConfigDict({"name": RESNET, "overrides": overrides})
  config.head = ConfigDict({"name": "psp"})
  config.aux = ConfigDict({"name": "fcn"})  # on stage3, 256 channels
  config.losses.aux = aux


def mobilenet(config: ConfigDict, aux: float) -> None:
  """MobileNetV2 without dilation; its pyramid pooling reads 1280 channels.

  There the authors' auxiliary loss is the main one once more.
  """
  config.student = ConfigDict({"name": MOBILENET, "overrides": {}})
  config.head = ConfigDict({"name": "psp", "act_layer": "relu6"})
  config.losses.ce = 1.0 + aux


def vit(config: ConfigDict, epochs: int) -> None:
  """A plain transformer with a head of linear layers; masks are not mixed."""
  transformer(config, epochs, rates=(3e-5, 1e-4, 3e-4))
  config.optim.head_lr = 10.0
  config.head = ConfigDict({"name": "light"})
  config.aux = ConfigDict({"name": ""})
  config.losses.update({"ce": 1.0, "aux": 0.0})


def done(config: ConfigDict, tiny: bool) -> ConfigDict:
  """Locks a config, after making it a smoke run on small scenes if `tiny`."""
  if tiny:
    small(config)
    scenes = {"name": "scenes", "classes": (0, 1, 2)}
    config.data = ConfigDict({**scenes, "split": "train", "length": 48})
    config.test = ConfigDict({**scenes, "split": "test", "length": 8})
    config.head.channels = 8
    if config.aux.name:
      config.aux.channels = 8
    config.preprocess = dense(32, hflip=0.0)
    config.eval.batch_size = 8
  config.lock()
  return config
