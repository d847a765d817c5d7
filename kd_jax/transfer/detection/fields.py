"""What a detector is told, and whether it makes sense."""

from __future__ import annotations

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.transfer.detection.forms import base
from kd_jax.types import Network

NORMS = ("frozen", "train", "precise")


class Fields(Network):
  """The fields of `detector.Detector`.

  Attributes:
    backbone: the network, without classifier (num_classes=0).
    form: what is read of it; a file of `detection.forms`.
    num_classes: without background.
    masks: whether every object gets a mask.
    norm: 'frozen': BatchNorm of the backbone uses its running statistics in
      training, and its scales and biases are not to be trained, see `unread`.
      'train' and 'precise': it uses those of the batch. A BatchNorm of the
      box head uses the same, and is trained in any case.
    rpn_batch: anchors per image that the first stage learns from.
    rpn_fraction: at most this part of them are objects.
    rpn_iou: with less overlap an anchor is background, from the second number
      on it is an object.
    box_batch: regions per image that the second stage learns from.
    box_fraction: at most this part of them are objects.
    box_iou: with less overlap a region is background, else an object.
    nms: largest IoU of two proposals of a level.
    score: detections have to score above it.
    test_nms: largest IoU of two detections of a class.
    detections: most per image.
    sample: 'random', from the rng collection 'dropout', or 'first'.
    dtype: compute dtype of neck and heads; None promotes.
  """

  backbone: backbone.Backbone
  form: base.BaseForm
  num_classes: int
  masks: bool = False
  norm: str = "frozen"
  rpn_batch: int = 256
  rpn_fraction: float = 0.5
  rpn_iou: tuple[float, ...] = (0.3, 0.7)
  box_batch: int = 512
  box_fraction: float = 0.25
  box_iou: float = 0.5
  nms: float = 0.7
  score: float = 0.05
  test_nms: float = 0.5
  detections: int = 100
  sample: str = "random"
  dtype: layers.Dtype = None

  def __post_init__(self) -> None:
    base.tuples(self)
    super().__post_init__()
    if self.backbone.num_classes:
      raise ValueError(
        f"the backbone has a classifier of {self.backbone.num_classes} "
        "classes, which a detector does not read; make it with num_classes=0"
      )
    backbone.one_of("detector.norm", self.norm, NORMS)
    backbone.one_of("detector.sample", self.sample, ("random", "first"))
    for name in ("num_classes", "rpn_batch", "box_batch", "detections"):
      base.at_least(name, getattr(self, name), 1)
    base.within_unit(
      rpn_fraction=self.rpn_fraction,
      box_fraction=self.box_fraction,
      box_iou=self.box_iou,
      nms=self.nms,
      score=self.score,
      test_nms=self.test_nms,
    )
    base.ordered("rpn_iou", self.rpn_iou)
    base.at_least("box_batch * detector.box_fraction", self.objects_at_most, 1)

  @property
  def objects_at_most(self) -> int:
    """So many regions per image, the first, may be objects."""
    return int(self.box_batch * self.box_fraction)

  @property
  def num_features(self) -> int:
    """Width of the backbone's tap 'pooled'."""
    return self.backbone.num_features

  @property
  def example_size(self) -> tuple[int, int]:
    """See `Backbone`."""
    return self.backbone.example_size

  @property
  def NO_DECAY(self) -> tuple[str, ...]:  # noqa: N802 - a Backbone's name
    """See `Backbone`."""
    return self.backbone.NO_DECAY
