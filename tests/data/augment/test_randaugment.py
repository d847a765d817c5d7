"""Golden: timm 1.0.31's own operations with Pillow 13, on a photograph.

`op_cases` are (operation, magnitude, negated, bicubic), `op_sha256` digests of
the pixels. Pillow 13 refuses to keep 0 bits, what PosterizeIncreasing does at
magnitude 10; the golden is black there, as older Pillows make it.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd_jax.data.augment import randaugment

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "data_augment.npz")
PHOTO = GOLDEN["photo"]
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def test_table_is_timms():
  assert [op.name for op in randaugment.OPS] == GOLDEN["names"].tolist()
  assert [op.signed for op in randaugment.OPS] == GOLDEN["signed"].tolist()
  assert str(randaugment.OPS[3]) == "Rotate: +-0 to 30 degrees"
  assert str(randaugment.OPS[0]) == "AutoContrast"


@pytest.mark.parametrize("index", range(15))
def test_operations_equal_timms(index):
  op = randaugment.OPS[index]
  kinds = set()
  for (number, magnitude, negated, bicubic), digest in zip(
    GOLDEN["op_cases"], GOLDEN["op_sha256"], strict=True
  ):
    if number != index:
      continue
    level = magnitude / 10 * (-1 if negated else 1)
    found = op(Image.fromarray(PHOTO), level, FILTERS[int(bicubic)])
    found = np.asarray(found)
    assert found.shape == PHOTO.shape and found.dtype == np.uint8
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == digest, level
    kinds.add(found.tobytes())
  assert len(kinds) > 3 or index < 3 and kinds


class Scripted:
  """A generator that returns what it is told, and notes what was asked."""

  def __init__(self, ops, random, normal=(), filters=()):
    self.integer_values = [ops, *filters]
    self.random_values = list(random)
    self.normal_values = list(normal)

  def integers(self, high, size=None):
    assert (high, size) in (
      (15, len(self.integer_values[0]) if size else 0),
      (2, None),
    )
    return self.integer_values.pop(0)

  def random(self):
    return self.random_values.pop(0)

  def normal(self, mean, std):
    assert (mean, std) == (7.0, 2.0)
    return self.normal_values.pop(0)


def augment(rng, **options):
  return randaugment.random_augment(
    PHOTO,
    rng,
    num_ops=len(rng.integer_values[0]),
    magnitude=7.0,
    magnitude_std=2.0,
    **options,
  )


def test_operations_follow_each_other():
  # Rotated by -27 degrees with bicubic, not solarized, then sheared.
  rng = Scripted(
    [3, 5, 11],
    random=[0.39, 0.2, 0.4, 0.1, 0.7],
    normal=[9.0, 12.5],
    filters=[1, 0],
  )
  found = augment(rng, prob=0.4)
  fill = (124, 116, 104)
  image = Image.fromarray(PHOTO).rotate(-27.0, FILTERS[1], fillcolor=fill)
  # A strength above 10 counts as 10.
  image = image.transform(
    image.size, Image.AFFINE, (1, 0.3, 0, 0, 1, 0), FILTERS[0], fillcolor=fill
  )
  np.testing.assert_array_equal(found, image)
  assert not rng.random_values + rng.normal_values + rng.integer_values


def test_nothing_is_done_by_chance_or_by_wish():
  rng = Scripted([0, 1], random=[0.5, 0.9])
  np.testing.assert_array_equal(augment(rng, prob=0.5), PHOTO)
  rng = np.random.default_rng(0)
  found = randaugment.random_augment(PHOTO, rng, num_ops=0)
  np.testing.assert_array_equal(found, PHOTO)


def test_draws_are_seeded_and_spread():
  rng = np.random.default_rng(3)
  found = [randaugment.random_augment(PHOTO, rng) for _ in range(200)]
  again = randaugment.random_augment(PHOTO, np.random.default_rng(3))
  np.testing.assert_array_equal(again, found[0])
  # With 2 draws at probability 1/2, a quarter stays as it is.
  same = np.mean([(image == PHOTO).all() for image in found])
  assert 0.17 < same < 0.36
  assert len({image.tobytes() for image in found}) > 120


@pytest.mark.parametrize(
  ("setting", "message"),
  [
    ({"num_ops": -1}, "num_ops=-1; it must be at least 0"),
    ({"magnitude": 11.0}, r"magnitude=11.0; it must be in \[0, 10\]"),
    ({"magnitude_std": -0.5}, "magnitude_std=-0.5; it must be at least 0"),
    ({"prob": 1.5}, r"prob=1.5; it must be in \[0, 1\]"),
  ],
)
def test_bad_settings(setting, message):
  with pytest.raises(ValueError, match=message):
    randaugment.random_augment(PHOTO, np.random.default_rng(0), **setting)
