"""Encoded bytes to RGB pixels."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

# EXIF rotation stays off: ImageNet's tags are known to be wrong, and timm and
# torchvision ignore them too.
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def decode(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
  """Decodes JPEG, PNG or WebP; gray is repeated, alpha dropped, EXIF ignored.

  Args:
    data: the encoded image.
    name: what to call it in an error message, a path for instance.

  Raises:
    ValueError: empty, corrupt or truncated.
  """
  if not data:
    raise ValueError(f"{name}: 0 bytes, not an image. Remove or replace it.")
  image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
  if image is None:
    raise ValueError(
      f"{name}: corrupt, truncated or not an image ({len(data)} bytes; "
      "JPEG, PNG and WebP can be read). Remove or replace it."
    )
  return image
