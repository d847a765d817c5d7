"""The two ways in which data sets are fine-tuned on: KDEP's and Kornblith's."""

from ml_collections import ConfigDict

from configs.common import preprocess
from configs.common_transfer import (
  MOBILENET,
  RAW,
  RESNET,
  paper_protocol,
  small,
  split,
  transfer,
  transformer,
)

PAPER = ("", "mnv2", "paper", "paper_mnv2", "vit")
STANDARD = ("", "mnv2", "vit")


def classification(images: int, epochs: int, batch_size: int) -> ConfigDict:
  """An unlocked classification of so many epochs, at 224 pixels.

  Views are those of KDEP's transfer code: random resized crops and flips; the
  short side to 256 and its centre in evaluation.

  Args:
    images: for training; a search of the rate takes as many steps on fewer.
    epochs: over them.
    batch_size: global.
  """
  config = transfer("classify")
  config.batch_size = batch_size
  config.steps = epochs * images // batch_size
  config.preprocess = preprocess(
    224,
    interpolation="bilinear",
    crop_pct=0.875,
    train_interpolation="bilinear",
  )
  return config


def paper_classification(
  variant: str,
  train: ConfigDict,
  test: ConfigDict,
  *,
  images: int,
  overrides: dict = RAW,
  rates: tuple = (1e-3,),
) -> ConfigDict:
  """KDEP's protocol, with the rate chosen on held-out images or its own way.

  Source: github.com/CVMI-Lab/KDEP, src/transfer: all weights, SGD, momentum
  .9, weight decay 5e-4, batch 64, 150 epochs, rate times .1 after 50 and 100;
  each twice; the best evaluation on the test images of one every 5 epochs.

  Args:
    variant: of `PAPER`, or a smoke run of one.
    train: all training images.
    test: those that count.
    images: number of training images, from which steps follow.
    overrides: of the student; the authors' normalisation.
    rates: the authors'.
  """
  tiny, kind = split(variant, PAPER)
  config = classification(images, epochs=150, batch_size=64)
  config.data, config.test = train, test
  name = MOBILENET if kind.endswith("mnv2") else RESNET
  config.student = ConfigDict({"name": name, "overrides": dict(overrides)})
  config.optim.update({"lr": 1e-3, "weight_decay": 5e-4, "schedule": "step"})
  config.optim.decay_every = -(-config.steps // 3)
  config.transfer.update({"seeds": (0, 1), "rates": (1e-3, 3e-3, 1e-2)})
  if kind.startswith("paper"):
    paper_protocol(config, every=config.steps // 30)
    config.transfer.rates = rates if len(rates) > 1 else ()
  if kind == "vit":
    vit(config, epochs=150)
  return done(config, tiny)


def standard_classification(
  variant: str,
  train: ConfigDict,
  test: ConfigDict,
  *,
  images: int,
  figure: str = "top1",
  steps: int = 20_000,
  batch_size: int = 256,
  variants: tuple[str, ...] = STANDARD,
) -> ConfigDict:
  """A number of steps of Nesterov's SGD, as Kornblith et al. fine-tune.

  Source: Do Better ImageNet Models Transfer Better?, CVPR 2019
  (arXiv:1805.08974): batch 256, 20,000 steps, a cosine to 0, momentum .9; rate
  and weight decay chosen on validation images, then trained on them too.
  Theirs are 7 rates from 1e-4 to .1 and 8 weight decays; here 4 rates and one.

  Args:
    variant: of `variants`, or a smoke run of one.
    train: all training images, the official validation images among them.
    test: those that count.
    images: number of training images; only `:vit` reads it, for 100 epochs.
    figure: what chooses the rate.
    steps: of SGD.
    batch_size: global.
    variants: those of the config.
  """
  tiny, kind = split(variant, variants)
  config = classification(images, epochs=100, batch_size=batch_size)
  config.data, config.test, config.eval.figure = train, test, figure
  config.transfer.seeds = (0, 1, 2)
  config.student.name = MOBILENET if kind == "mnv2" else RESNET
  if kind == "vit":
    vit(config, epochs=100)
    return done(config, tiny)
  config.steps = steps
  config.optim.update({"lr": 1e-2, "nesterov": True, "weight_decay": 1e-4})
  config.optim.schedule = "cosine"
  config.transfer.rates = (0.001, 0.0032, 0.01, 0.032)
  return done(config, tiny)


def vit(config: ConfigDict, epochs: int) -> None:
  """`transformer`, with mixed images; see docs/transfer.md."""
  transformer(config, epochs, rates=(1.25e-4, 2.5e-4, 5e-4))
  config.mix.update({"mixup": 0.8, "cutmix": 1.0, "smoothing": 0.1})


def done(config: ConfigDict, tiny: bool) -> ConfigDict:
  """Locks a config, after making it a smoke run on gratings if `tiny`."""
  if tiny:
    small(config)
    images = {"name": "synthetic", "size": 40, "num_classes": 4}
    config.data = ConfigDict({**images, "length": 48})
    config.test = ConfigDict({**images, "length": 24, "seed": 1})
    config.preprocess.image_size = 32
  config.lock()
  return config
