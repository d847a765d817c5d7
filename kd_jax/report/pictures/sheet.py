"""Sheets of small pictures with captions, placed pixel by pixel.

A sheet is transparent and its text is grey, so that it reads on light and dark
pages, as the plots do.
"""

from __future__ import annotations

import io
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from kd_jax import disk
from kd_jax.report.plots import INK

FOLDER = "pictures"
WIDTH = 900
"""Pixels of a sheet; as wide as the page."""

_DPI = 96
_TINY = 64  # Pixels of images up to this side are shown as squares.
_LIGHT = 0.6  # Grounds as light as this have black letters.

Pixels = UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"]
"""RGB: uint8, or floats in [0, 1]."""


class Sheet:
  """A canvas of `WIDTH` pixels, measured from its top left corner."""

  def __init__(self, height: int) -> None:
    from matplotlib import figure

    size = (WIDTH / _DPI, height / _DPI)
    self._figure = figure.Figure(figsize=size, dpi=_DPI)
    self._axes = self._figure.add_axes((0, 0, 1, 1))
    self._axes.set_axis_off()
    self._size = (WIDTH, height)

  def image(
    self, pixels: Pixels, left: float, top: float, side: float
  ) -> tuple[float, float, float]:
    """Draws an image as large as a square lets it be, in its middle.

    Args:
      pixels: the image.
      left: edge of the square.
      top: edge of the square.
      side: of the square.

    Returns:
      (left, top, scale) of the image: pixel (row, column) of it is at
      (left + scale * column, top + scale * row).
    """
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    left += (side - scale * width) / 2
    top += (side - scale * height) / 2
    tiny = max(height, width) <= _TINY
    self._axes.imshow(
      pixels if tiny else _shrunk(pixels, scale),
      extent=(left, left + scale * width, top + scale * height, top),
      interpolation="nearest" if tiny else "antialiased",
    )
    return left, top, scale

  def box(
    self,
    left: float,
    top: float,
    width: float,
    height: float,
    color: str,
    thick: float = 2.0,
  ) -> None:
    """Draws a rectangle; its edge lies outside of what it encloses."""
    from matplotlib import patches

    edge = thick / 2
    self._axes.add_patch(
      patches.Rectangle(
        (left - edge, top - edge),
        width + thick,
        height + thick,
        fill=False,
        edgecolor=color,
        # Points are 72 to the inch.
        linewidth=thick * 72 / _DPI,
        joinstyle="miter",
      )
    )

  def text(
    self,
    words: str,
    left: float,
    top: float,
    *,
    color: str = INK,
    size: float = 11.0,
    bold: bool = False,
    center: bool = False,
  ) -> None:
    """Writes a line; `top` is its upper edge, `size` in pixels."""
    self._axes.text(
      left,
      top,
      words,
      color=color,
      fontsize=size * 72 / _DPI,
      weight="bold" if bold else "normal",
      ha="center" if center else "left",
      va="top",
      # A class may be called $x$.
      parse_math=False,
    )

  def label(self, words: str, left: float, top: float, ground: str) -> None:
    """Writes a small line on a ground of its own, white or black."""
    from matplotlib import colors

    red, green, blue = colors.to_rgb(ground)
    light = 0.3 * red + 0.59 * green + 0.11 * blue > _LIGHT
    self._axes.text(
      left + 1,
      top,
      words,
      color="black" if light else "white",
      fontsize=9 * 72 / _DPI,
      va="top",
      parse_math=False,
      bbox={"facecolor": ground, "edgecolor": "none", "pad": 1.0},
    )

  def png(self) -> bytes:
    """The sheet as a PNG file."""
    width, height = self._size
    # Drawing images moves the limits.
    self._axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    buffer = io.BytesIO()
    self._figure.savefig(buffer, format="png", dpi=_DPI, transparent=True)
    return buffer.getvalue()


class Picture(NamedTuple):
  """What a page shows of a run.

  Attributes:
    png: None if it cannot be drawn.
    words: a sentence that says what it shows, or why it was left out.
  """

  png: bytes | None
  words: str = ""


def keep(
  workdir: pathlib.Path, name: str, png: bytes | None, words: str = ""
) -> pathlib.Path:
  """Writes `workdir/pictures/<name>.png`, whole or not at all.

  Args:
    workdir: folder of the run.
    name: of the picture.
    png: see `Picture`; where it is None an older picture goes away.
    words: see `Picture`, kept beside it as `<name>.txt`.
  """
  path = workdir / FOLDER / f"{name}.png"
  path.parent.mkdir(parents=True, exist_ok=True)
  if png is None:
    path.unlink(missing_ok=True)
  else:
    disk.write(path, png)
  below = path.with_suffix(".txt")
  if words:
    disk.write(below, words.encode())
  else:
    below.unlink(missing_ok=True)
  return path


def kept(workdir: pathlib.Path) -> dict[str, Picture]:
  """What lies in `workdir/pictures`, by name."""
  paths = (workdir / FOLDER).glob("*")
  names = sorted({x.stem for x in paths if x.suffix in (".png", ".txt")})
  found = {}
  for name in names:
    png, words = (workdir / FOLDER / f"{name}{x}" for x in (".png", ".txt"))
    found[name] = Picture(
      png.read_bytes() if png.exists() else None,
      words.read_text("utf-8") if words.exists() else "",
    )
  return found


def class_name(label: int, names: tuple[str, ...], most: int = 14) -> str:
  """What to write below an image: '' without a label."""
  if label < 0:
    return ""
  name = names[label] if label < len(names) else str(label)
  return name if len(name) <= most else f"{name[: most - 1]}…"


def _shrunk(pixels: Pixels, scale: float) -> Pixels:
  """Every n-th pixel's mean: photographs have far more than are shown."""
  step = int(1 / (2 * scale)) if scale < 0.5 else 1
  if step < 2:
    return pixels
  height, width = (side // step * step for side in pixels.shape[:2])
  blocks = pixels[:height, :width].reshape(
    height // step, step, width // step, step, 3
  )
  mean = blocks.mean((1, 3), dtype=np.float32)
  return np.rint(mean).astype(np.uint8) if pixels.dtype == np.uint8 else mean
