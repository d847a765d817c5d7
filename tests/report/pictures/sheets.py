"""Reading what was drawn."""

import io

import numpy as np
from matplotlib import colors
from PIL import Image


def pixels(png):
  """(h, w, 4) of a PNG; the last channel is 0 where nothing is drawn."""
  return np.asarray(Image.open(io.BytesIO(png)))


def colour(name):
  """'#ff0000' -> [255, 0, 0]."""
  return [round(255 * x) for x in colors.to_rgb(name)]
