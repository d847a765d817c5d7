"""All that a detector said of a source, small enough to be kept.

Masks become run lengths as soon as they come: those of 5,000 images with 100
detections each would otherwise be 150 GB.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, Int32

from kd_jax.transfer.average_precision import rle
from kd_jax.transfer.average_precision.found import Found
from kd_jax.transfer.average_precision.paste import paste
from kd_jax.transfer.average_precision.truth import Truth


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
  """The d detections of all images, image by image.

  Attributes:
    image: which one, an index into those of `Truth`.
    boxes: (x0, y0, x1, y1), pixels of the image.
    scores: in [0, 1].
    classes: from 0 on.
    masks: see `rle.encode`; None without.
  """

  image: Int32[np.ndarray, " d"]
  boxes: Float32[np.ndarray, "d 4"]
  scores: Float32[np.ndarray, " d"]
  classes: Int32[np.ndarray, " d"]
  masks: tuple[bytes, ...] | None

  def of(self, index: int) -> slice:
    """The rows of the detections in an image."""
    first, last = np.searchsorted(self.image, [index, index + 1])
    return slice(int(first), int(last))


def collect(truth: Truth, found: Iterable[Found]) -> Detections:
  """Keeps what comes; an image that does not come has no detections.

  Args:
    truth: of the same images.
    found: of each image at most once, in any order; may be a generator.

  Raises:
    ValueError: an image or a class that `truth` does not know, an image that
      comes twice, or values that are not finite.
  """
  kept: dict[int, tuple[Found, list[bytes] | None]] = {}
  for each in found:
    _check(truth, each)
    if each.index in kept:
      raise ValueError(
        f"image {each.index} has detections twice; pass every image once"
      )
    kept[each.index] = dataclasses.replace(each, masks=None), _runs(truth, each)
  images = [kept[index] for index in sorted(kept)]
  return _joined([each for each, _ in images], [runs for _, runs in images])


def _runs(truth: Truth, found: Found) -> list[bytes] | None:
  if found.masks is None:
    return None
  size = truth.size(found.index)
  pairs = zip(found.masks, found.boxes, strict=True)
  return [rle.encode(paste(mask, box, size)) for mask, box in pairs]


def _joined(
  found: Sequence[Found], masks: Sequence[list[bytes] | None]
) -> Detections:
  masked = [runs for runs in masks if runs is not None]
  if masked and len(masked) < len(masks):
    raise ValueError(
      f"{len(masked)} of {len(masks)} images have masks of their detections; "
      "give all of them masks, or none"
    )
  index = [each.index for each in found]
  lengths = [len(each.scores) for each in found]
  return Detections(
    np.repeat(np.array(index, np.int32), lengths),
    np.concatenate([np.zeros((0, 4), np.float32), *(x.boxes for x in found)]),
    np.concatenate([np.zeros(0, np.float32), *(x.scores for x in found)]),
    np.concatenate([np.zeros(0, np.int32), *(x.classes for x in found)]),
    tuple(run for runs in masked for run in runs) if masked else None,
  )


def _check(truth: Truth, found: Found) -> None:
  count, classes = len(truth.sizes), len(truth.names)
  if not 0 <= found.index < count:
    raise ValueError(
      f"detections of image {found.index}, and the truth has images 0 to "
      f"{count - 1}; collect both with the same limit"
    )
  if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
    raise ValueError(
      f"detections of image {found.index} are not finite: the network has "
      "diverged; train it with a lower --config.lr"
    )
  if ((found.classes < 0) | (found.classes >= classes)).any():
    raise ValueError(
      f"detections of image {found.index} have the classes "
      f"{np.unique(found.classes).tolist()}, and the truth knows 0 to "
      f"{classes - 1}; judge a detector on the classes that it was trained on"
    )
