"""A tiny teacher, a few photographs, and the command on them."""

import contextlib
import io
import re

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from kd_jax import cli, models
from kd_jax.models.resnet import resnet

STUDENT = "resnet_of_the_tests"
SMALL = ("--steps", "3", "--batch-size", "4", "--image-size", "32")


@contextlib.contextmanager
def known_student():
  """A network of a few channels under a name, since names are all it takes."""
  tiny = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 16), "stem_width": 4}
  resnet.VARIANTS[STUDENT] = resnet.VARIANTS["resnet18"] | tiny
  models._families.cache_clear()
  yield
  del resnet.VARIANTS[STUDENT]
  models._families.cache_clear()


def photographs(folder, count=40, side=60):
  """Cut from scikit-learn's samples."""
  folder.mkdir(parents=True)
  photos = load_sample_images().images
  for i in range(count):
    top, left = 9 * i, 13 * i
    tile = photos[i % 2][top % 360 :, left % 560 :][:side, : side + 10]
    Image.fromarray(np.ascontiguousarray(tile)).save(folder / f"{i:02}.jpg")
  return folder


def command(*argv):
  """(exit status, standard error) of kd-jax, in this process."""
  error = io.StringIO()
  with contextlib.redirect_stderr(error):
    status = cli.main([str(arg) for arg in argv])
  return status, error.getvalue()


def distil(images, teacher, out, *more):
  named = ("--images", images, "--teacher", teacher, "--out", out)
  return command("distill", *named, "--student", STUDENT, *SMALL, *more)


def refused(argv, message):
  """Whether the command ends in one line that says so."""
  status, said = command(*argv)
  assert status == 1 and "Traceback" not in said
  (line,) = [x for x in said.splitlines() if x.startswith("error: ")]
  assert said.rstrip().endswith(line)
  assert re.search(message, line), line
