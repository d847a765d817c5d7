"""KDEP's way to fine-tune detectors (Detectron2 0.5), and ViTDet's."""

from ml_collections import ConfigDict

from configs.common_transfer import (
  transfer,
)

COCO_SIDES = (640, 672, 704, 736, 768, 800)
VOC_SIDES = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)


def detection(
  steps: int, milestones: tuple[int, ...], warmup: int, views: dict
) -> ConfigDict:
  """An unlocked detection by the authors' numbers.

  Source: github.com/CVMI-Lab/KDEP, src/detection (Detectron2 0.5): batch 16,
  SGD at .02, momentum .9, weight decay 1e-4 but for normalisation, a linear
  warm-up from a thousandth.

  Args:
    steps: in all.
    milestones: where the rate falls by 10.
    warmup: steps.
    views: fields of kd_jax.data.detection.Detection that differ.
  """
  config = transfer("detect")
  config.steps, config.batch_size = steps, 16
  config.preprocess = objects(**views)
  config.optim.update(
    {
      "lr": 0.02,
      "weight_decay": 1e-4,
      "no_decay": NORMS,
      "schedule": "milestones",
      "milestones": milestones,
      "warmup": warmup,
      "warmup_lr": 0.02 / 1000,
    }
  )
  config.eval.batch_size = 16
  return config
