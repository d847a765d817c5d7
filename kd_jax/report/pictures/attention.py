"""Where the last attention of each network looks."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from kd_jax.report.pictures import columns, look
from kd_jax.report.pictures import sheet as sheet_lib

_SHARE = 0.65  # Of the heat in what is shown; the rest is the image in grey.


def draw(looked: look.Looked) -> sheet_lib.Picture:
  """The queries beside the attention of every network that has one."""
  found = {
    name: seen.attention
    for name, seen in looked.seen.items()
    if seen.attention is not None and np.isfinite(seen.attention).all()
  }
  why = "whose network shows no attention over the whole image"
  reasons = {name: why for name in looked.seen if name not in found}
  left_out = columns.missing({**looked.absent, **reasons})
  if not found:
    return sheet_lib.Picture(None, f"No maps of attention. {left_out}")
  images = looked.queries.image
  tiles = {
    name: [overlaid(*pair) for pair in zip(images, each, strict=True)]
    for name, each in found.items()
  }
  words = (
    "Bright is where the last attention layer looks, on the mean of its heads: "
    "that of the token which the network pools, or of all patches where it "
    f"averages them. {left_out}"
  )
  png = columns.draw({"image": [*images], **tiles})
  return sheet_lib.Picture(png, words.strip())


def overlaid(
  image: UInt8[np.ndarray, "s t 3"], attention: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "s t 3"]:
  """Heat over the image in grey, from its smallest to its largest value."""
  from matplotlib import colormaps

  low, high = attention.min(), attention.max()
  scaled = (attention - low) / max(high - low, np.finfo(np.float32).tiny)
  size = image.shape[1], image.shape[0]
  smooth = cv2.resize(scaled.astype(np.float32), size)
  heat = colormaps["inferno"](np.clip(smooth, 0, 1))[..., :3]
  grey = image.mean(-1, keepdims=True) / 255
  return _SHARE * heat + (1 - _SHARE) * grey
