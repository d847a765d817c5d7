"""Images placed by t-SNE of their features (van der Maaten and Hinton, 2008).

JMLR 9:2579-2605. Near in the picture is near in the feature; distances between
groups mean little.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from kd_jax.report.pictures import look
from kd_jax.report.pictures import sheet as sheet_lib

MOST = 128
"""Images that are placed."""

_FEWEST = 8
_SIDE, _EDGE = 46, 3  # Of a thumbnail and its frame, pixels.


def draw(looked: look.Looked, name: str) -> sheet_lib.Picture:
  """The gallery as a network sees it, or why it is not drawn.

  Args:
    looked: what networks saw.
    name: of the network.
  """
  reason = looked.absent.get(name) or _unfit(looked.features[name][:MOST])
  if reason:
    words = f"No t-SNE of features. Left out: the {name}, {reason}."
    return sheet_lib.Picture(None, words)
  features = looked.features[name][:MOST]
  png = _sheet(looked.gallery, places(features))
  kinds = len(_frames(looked.gallery))
  framed = f", framed by class ({kinds})" if kinds else ""
  words = (
    f"{len(features)} images{framed}, placed by t-SNE of the {name}'s "
    "features: those that lie together look alike to it."
  )
  return sheet_lib.Picture(png, words)


def places(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
  """Places in [0, 1] x [0, 1]; the same for the same features."""
  import threadpoolctl  # comes with scikit-learn
  from sklearn import manifold  # slow to import

  unit = features.astype(np.float64)
  unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
  fit = manifold.TSNE(
    perplexity=min(30.0, (len(unit) - 1) / 3),
    init="pca",
    random_state=0,
    # Few images; the fast method's sums depend on the number of threads.
    method="exact",
  )
  with threadpoolctl.threadpool_limits(1):
    found = fit.fit_transform(unit)
  low, high = found.min(0), found.max(0)
  return (found - low) / np.maximum(high - low, np.finfo(np.float32).tiny)


def _sheet(images: look.Images, where: Float[np.ndarray, "n 2"]) -> bytes:
  from matplotlib import colors

  page = sheet_lib.Sheet(sheet_lib.WIDTH)
  frames = _frames(images)
  room = sheet_lib.WIDTH - _SIDE - 2 * _EDGE
  for row, (across, down) in enumerate((room * where).tolist()):
    color = frames.get(int(images.label[row]))
    if color:  # below its image, above those before
      ground = np.array(colors.to_rgb(color)).reshape(1, 1, 3)
      page.image(ground, across, down, _SIDE + 2 * _EDGE)
    page.image(images.image[row], across + _EDGE, down + _EDGE, _SIDE)
  return page.png()


def _frames(images: look.Images) -> dict[int, str]:
  """{class: its colour}; {} without labels or with more than colours."""
  from matplotlib import colors

  frames = tuple(map(colors.to_hex, colors.TABLEAU_COLORS.values()))
  classes = np.unique(images.label[:MOST]).tolist()
  if -1 in classes or not 1 < len(classes) <= len(frames):
    return {}
  return dict(zip(classes, frames, strict=False))


def _unfit(features: Float[np.ndarray, "n d"]) -> str:
  """Why the features are not placed; '' if they are."""
  if len(features) < _FEWEST:
    return f"which takes {_FEWEST} images, and there are {len(features)}"
  if not np.isfinite(features).all():
    return "whose features are not finite"
  if np.ptp(features, axis=0).max() < 1e-9:
    return "whose features are the same for all images"
  return ""
