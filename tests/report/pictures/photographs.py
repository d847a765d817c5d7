"""Two real photographs as files of different sizes, in two classes."""

from PIL import Image
from sklearn.datasets import load_sample_images

CLASSES = ("flower", "temple")
SIZES = ((100, 160), (160, 90), (120, 120), (240, 320))


def save(root, count=8):
  """`count` parts of each photograph, as `root/<class>/<number>.png`."""
  for name, photo in zip(
    reversed(CLASSES), load_sample_images().images, strict=True
  ):
    (root / name).mkdir(parents=True)
    for number in range(count):
      height, width = SIZES[number % len(SIZES)]
      top, left = 17 * number, 29 * number
      part = photo[top : top + height, left : left + width]
      Image.fromarray(part).save(root / name / f"{number}.png")
  return root
