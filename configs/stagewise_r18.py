r"""Stage-wise distillation, ResNet-34 -> ResNet-18 on ImageNet.

Gao et al., arXiv:1812.01819; see docs/stagewise.md for what could not be read.

Command: python -m kd_jax.main --config configs/stagewise_r18.py
Variants: `:joint` trains all stages at once, `:swin` takes a Swin-T as the
  teacher (stages pair up by number, channels are standardised), `:smoke` and
  `:joint_smoke` take seconds.
Data: imagenet2012 as TensorFlow Datasets prepares it (docs/data.md).

Expected: the paper's ImageNet figures were not obtained, and this config has
not been run in full. Others report for this pair (top-1; ResNet-18 alone has
69.76): KD 70.50 to 71.21, FitNets 70.66, AT 70.70, CRD 71.17, ReviewKD 71.61,
DIST 72.07. 100 epochs for the stages, 20 for the classifier, batch 1024, rate
.1 per 256 images. The weights of a stage are chosen on 10,000 training images.
"""

from ml_collections import ConfigDict

from configs.common import choose, imagenet, preprocess
from configs.common_stagewise import VARIANTS, finish, stagewise

EPOCH = 1_281_167 // 1024  # steps


def get_config(variant: str = "") -> ConfigDict:
  """SGD with Nesterov momentum, rate .4, weight decay 1e-4."""
  choose(variant, (*VARIANTS, "swin"))
  config = stagewise(epoch=EPOCH, epochs=100, head_epochs=20)
  config.batch_size = 1024
  config.optim.update({"lr": 0.4, "weight_decay": 1e-4})
  config.teacher.name = "resnet34"
  config.teacher.weights = "timm/resnet34.tv_in1k"
  if variant == "swin":
    config.teacher.name = "swin_tiny_patch4_window7_224"
    config.teacher.weights = "timm/swin_tiny_patch4_window7_224.ms_in1k"
  config.data = imagenet("train")
  config.preprocess = preprocess(224, train_interpolation="bilinear")
  config.eval.update({"evals": ("top1",), "tap": "logits"})
  config.eval.train = imagenet("train", 1)  # top1 does not read it
  config.eval.test = imagenet("validation")
  config.eval.update({"judge": imagenet("train", 10), "limit": 0})
  return finish(config, "" if variant == "swin" else variant)
