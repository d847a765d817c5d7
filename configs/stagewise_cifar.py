r"""Stage-wise distillation, ResNet-34 -> ResNet-18 on CIFAR-100.

Gao et al., arXiv:1812.01819; see docs/stagewise.md for what could not be read.

Command, after the teacher's: python -m kd_jax.main \
  --config configs/stagewise_cifar.py:teacher --workdir runs/cifar_teacher
  python -m kd_jax.main --config configs/stagewise_cifar.py \
  --config.teacher.weights=runs/cifar_teacher/student
Variants: `:teacher` trains the teacher on the labels, `:joint` all stages at
  once, `:smoke` and `:joint_smoke` take seconds.
Data: cifar100 as TensorFlow Datasets prepares it (docs/data.md).

Expected: nobody's figure is quoted here. The paper reports CIFAR-100, but its
tables were not obtained, and this config has not been run in full. 240 epochs
for the stages and 30 for the classifier at the usual rates; the weights of a
stage are chosen on training images, so the test images decide nothing.
"""

from ml_collections import ConfigDict

from configs.common import preprocess
from configs.common_stagewise import finish, stagewise

EPOCH = 50_000 // 64  # steps
STEM = {"stem_type": "cifar", "num_classes": 100}


def get_config(variant: str = "") -> ConfigDict:
  """SGD with Nesterov momentum, rate .05, weight decay 5e-4."""
  config = stagewise(epoch=EPOCH, epochs=240, head_epochs=30)
  config.batch_size = 64
  config.optim.update({"lr": 0.05, "weight_decay": 5e-4})
  config.student = ConfigDict({"name": "resnet18", "overrides": STEM})
  config.teacher.update({"name": "resnet34", "overrides": {}})
  config.data = cifar100("train")
  config.preprocess = preprocess(
    32, augment="shift", shift=4, crop_pct=1.0, interpolation="bilinear"
  )
  config.eval.update({"evals": ("top1",), "tap": "logits"})
  config.eval.update({"train": cifar100("train[:100]")})  # top1 reads no vote
  config.eval.test = cifar100("test")
  if variant == "teacher":
    return teacher(config)
  return finish(config, variant)


def teacher(config: ConfigDict) -> ConfigDict:
  """A ResNet-34 that learns from the labels for 200 epochs."""
  config.steps = 200 * EPOCH
  config.student.name = "resnet34"
  config.teacher.update({"source": "none", "name": ""})
  config.method = ConfigDict({"name": "supervised"})
  config.losses = ConfigDict({"ce": 1.0})
  config.lock()
  return config


def cifar100(split: str) -> ConfigDict:
  """60,000 images of 100 classes."""
  return ConfigDict({"name": "tfds", "dataset": "cifar100", "split": split})
