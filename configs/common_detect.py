"""KDEP's way to fine-tune detectors (Detectron2 0.5), and ViTDet's."""

from ml_collections import ConfigDict

from configs.common_transfer import (
  MOBILENET,
  RESNET,
  VIT,
  small,
  transfer,
)

RESNET50, VIT_B = "resnet50", "vit_base_patch16_224"

COCO_SIDES = (640, 672, 704, 736, 768, 800)
VOC_SIDES = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)

# Normalisation does not decay, convolutions' biases do.
_NORMS = ("bn1", "bn2", "bn3", "downsample_bn", "norm")


def detection(
  data: tuple[ConfigDict, ConfigDict],
  sides: tuple[int, ...],
  *,
  steps: int,
  milestones: tuple[int, ...],
  warmup: int,
) -> ConfigDict:
  """An unlocked detection by the authors' numbers.

  Source: github.com/CVMI-Lab/KDEP, src/detection (Detectron2 0.5): batch 16,
  SGD at .02, momentum .9, weight decay 1e-4 but for normalisation, a linear
  warm-up from a thousandth; longer side at most 1333, mirrored.

  Args:
    data: all training images, and those that count.
    sides: shorter sides of training images, pixels; 800 in evaluation.
    steps: in all.
    milestones: where the rate falls by 10.
    warmup: steps.
  """
  config = transfer("detect")
  config.data, config.test = data
  config.steps, config.batch_size = steps, 16
  config.preprocess = objects(short=sides)
  config.optim.update(
    {
      "lr": 0.02,
      "weight_decay": 1e-4,
      "no_decay": _NORMS,
      "schedule": "milestones",
      "milestones": milestones,
      "warmup": warmup,
      "warmup_lr": 0.02 / 1000,
    }
  )
  config.eval.batch_size = 16
  return config


def coco_schedule(**changes) -> dict:
  """Of all COCO runs of the authors, the '1x' of Detectron2."""
  found = {"steps": 90_000, "milestones": (60_000, 80_000), "warmup": 1000}
  return {**found, **changes}


def voc_schedule() -> dict:
  """Of their VOC runs."""
  return {"steps": 18_000, "milestones": (12_000, 16_000), "warmup": 100}


def objects(**changes) -> ConfigDict:
  """Fields of kd_jax.data.detection.Detection, the authors' by default."""
  fields = {
    "short": (800,),  # shorter sides in training, drawn alike
    "long": 1333,  # longest side
    "test_short": 800,
    "test_long": 1333,
    "buckets": 2,  # sizes of canvases in training, for each orientation
    "jitter": (),  # (least, most) scale on a square canvas; (): none
    "hflip": 0.5,
    "max_objects": 100,
    "too_many": "error",  # or 'drop': the largest are kept
    "masks": False,
    "mask_size": 112,  # in which masks travel to the device
    "min_side": 0.0,  # of boxes that are learnt, pixels
    "divisor": 32,  # of the canvases' sides
  }
  return ConfigDict({**fields, **changes})


def coco(images: str, annotations: str, **fields) -> ConfigDict:
  """Images with COCO's annotations; see docs/data.md."""
  fields = {
    "name": "coco",
    "images": images,
    "annotations": annotations,
  } | fields
  return ConfigDict(fields)


def coco2017(masks: bool = False) -> tuple[ConfigDict, ConfigDict]:
  """Training and validation images of COCO 2017."""
  train = coco(
    "COCO/train2017",
    "COCO/annotations/instances_train2017.json",
    masks=masks,
    skip_invalid=True,  # two of its boxes have no height
  )
  val = coco(
    "COCO/val2017",
    "COCO/annotations/instances_val2017.json",
    masks=masks,
    keep_empty=True,
  )
  return train, val


def voc() -> tuple[ConfigDict, ConfigDict]:
  """Training images of VOC 2007 and 2012, and those of 2007's test."""
  fields = {"name": "voc", "dir": "VOCdevkit"}
  train = ConfigDict({**fields, "split": "2007_trainval+2012_trainval"})
  test = ConfigDict({**fields, "split": "2007_test", "keep_empty": True})
  return train, test


def resnet_c4(config: ConfigDict) -> None:
  """ResNet-18 whose own stage4 is the box head, with statistics re-estimated.

  The authors' box head is three bottlenecks, into which their ResNet-18 loads
  where names and shapes happen to agree; here it is the student's own stage.
  """
  config.student = ConfigDict({"name": RESNET, "overrides": {}})
  config.detector = ConfigDict(
    {"name": "c4", "extra_norm": True, "norm": "precise", "masks": False}
  )


def mobilenet_fpn(config: ConfigDict) -> None:
  """MobileNetV2 with a feature pyramid and frozen statistics."""
  config.student = ConfigDict({"name": MOBILENET, "overrides": {}})
  config.detector = ConfigDict(
    {"name": "fpn", "norm": "frozen", "masks": False}
  )


def resnet_fpn(config: ConfigDict, name: str) -> None:
  """A ResNet with a feature pyramid and frozen statistics."""
  config.student = ConfigDict({"name": name, "overrides": {}})
  config.detector = ConfigDict(
    {"name": "fpn", "norm": "frozen", "masks": False}
  )


def vitdet(config: ConfigDict) -> None:
  """ViT-B on squares of 1024 pixels, with a simple feature pyramid."""
  overrides = {"img_size": 1024, "drop_path_rate": 0.1}
  config.student = ConfigDict({"name": VIT_B, "overrides": overrides})
  config.detector = ConfigDict(
    {"name": "simple", "norm": "frozen", "masks": False}
  )
  config.batch_size = 64
  config.preprocess = objects(
    short=(1024,),
    long=1024,
    test_short=1024,
    test_long=1024,
    buckets=1,
    jitter=(0.1, 2.0),
  )
  config.optim.update(
    {
      "name": "adamw",
      "lr": 1e-4,
      "warmup_lr": 1e-7,
      "weight_decay": 0.1,
      "decay_all": False,  # timm's rule
      "layer_decay": 0.7,
    }
  )
  del config.optim["no_decay"]  # timm's


def with_masks(config: ConfigDict) -> None:
  """Mask R-CNN."""
  config.detector.masks = config.preprocess.masks = True
  config.losses.mask = 1.0


def done(config: ConfigDict, tiny: bool) -> ConfigDict:
  """Locks a config, after making it a smoke run on small scenes if `tiny`."""
  if tiny:
    masks = config.detector.masks
    _small_student(config)
    small(config)
    if "img_size" in config.student.overrides:
      config.student.overrides.img_size = 64
    scenes = {"name": "scenes", "classes": (0, 1, 2), "size": 64}
    scenes |= {"digits": (1, 3), "min_size": 0.25, "max_size": 0.5}
    config.data = ConfigDict({**scenes, "split": "train", "length": 24})
    config.test = ConfigDict({**scenes, "split": "test", "length": 8})
    jitter = config.preprocess.jitter
    config.preprocess = objects(
      short=(64,),
      long=64,
      test_short=64,
      test_long=64,
      buckets=1,
      jitter=jitter,
      hflip=0.0,
      max_objects=4,
      masks=masks,
      mask_size=28,
    )
    if config.optim.schedule == "milestones":
      config.optim.milestones = (2, 3)
    config.detector.update(tiny_detector(config.detector.name))
    config.eval.update({"batch_size": 8, "precise_batches": 2})
  config.lock()
  return config


def _small_student(config: ConfigDict) -> None:
  """A student of the same kind that `small` knows."""
  alike = {RESNET50: RESNET, VIT_B: VIT}
  name = config.student.name
  if name in alike:
    config.student = ConfigDict({"name": alike[name], "overrides": {}})


def tiny_detector(name: str) -> dict:
  """Fields of a detector of a few channels, for images of 64 pixels."""
  found = {"rpn_batch": 32, "box_batch": 16, "detections": 10}
  found |= {"pre_nms": (64, 64), "post_nms": (32, 16), "mask_channels": 8}
  if name == "c4":
    return {**found, "sizes": (8, 16, 32), "pooled": 4}
  return {
    **found,
    "sizes": (8, 12, 16, 24, 32),
    "channels": 8,
    "widths": (16,),
    "mask_convs": 1,
  }
