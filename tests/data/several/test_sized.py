"""A teacher's view is the student's crop in another size."""

import functools

import numpy as np
import pytest

from kd_jax.data.preprocess import Preprocess
from kd_jax.data.several.sized import Sized
from kd_jax.train import views as step_views
from kd_jax.types import Batch

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
RECORD = {"image": PIXELS, "label": 1, "id": 7}
PLAIN = Preprocess(image_size=16, color_jitter=(0.2, 0.2, 0.2), num_crops=2)
ALSO = (("a", (("image_size", 24), ("train_interpolation", "bicubic"))),)
SIZED = Sized(**vars(PLAIN), also=ALSO)
LARGE = Preprocess(
  **{**vars(PLAIN), "image_size": 24, "train_interpolation": "bicubic"}
)


def draw(crop):
  return np.random.default_rng(crop)


def test_every_view_is_what_its_settings_alone_give():
  found = SIZED.train(RECORD, draw)
  for views, image in ((PLAIN, found["image"]), (LARGE, found["views"]["a"])):
    alone = views.train(RECORD, draw)
    np.testing.assert_array_equal(image, alone["image"])
    np.testing.assert_array_equal(found["geometry"], alone["geometry"])
  assert found["views"]["a"].shape == (2, 24, 24, 3)
  assert np.ptp(found["views"]["a"]) > 100
  np.testing.assert_array_equal(SIZED.others(RECORD)["a"], LARGE.eval(RECORD))
  np.testing.assert_array_equal(SIZED.eval(RECORD), PLAIN.eval(RECORD))
  assert SIZED.other_cuts == {"a": (24, "bicubic")}
  assert SIZED.fingerprint() != PLAIN.fingerprint()


def test_a_photograph_is_decoded_for_the_largest_view():
  size = (960, 960)
  fields = {**vars(PLAIN), "color_jitter": (0, 0, 0), "scale": (0.9, 1.0)}
  reduction = functools.partial(Preprocess.reduction, size=size, rng=draw)
  also = (("a", (("image_size", 224),)),)
  small, large = (
    Preprocess(**{**fields, "image_size": side}) for side in (16, 224)
  )
  assert reduction(small) == 8 and reduction(large) == 2
  assert Sized(**vars(small), also=also).reduction(size, draw) == 2


def test_a_canvas_is_cut_in_every_size():
  fields = {**vars(PLAIN), "color_jitter": (0.0, 0.0, 0.0), "canvas": 48}
  fields["train_interpolation"] = "bilinear"
  plain = Preprocess(**fields)
  both = Sized(**fields, also=(("a", (("image_size", 24),)),))
  found = both.train(RECORD, draw)
  assert "views" not in found
  batch = Batch(
    found["image"][None],
    np.ones(1),
    np.ones(1),
    geometry=found["geometry"][None],
  )
  seen = step_views.seen(batch, step_views.cut_of(both))
  large = Preprocess(**{**fields, "image_size": 24})
  for views, image in ((plain, seen.image), (large, seen.views["a"])):
    alone = step_views.seen(batch, step_views.cut_of(views))
    np.testing.assert_array_equal(image, alone.image)
  assert seen.views["a"].shape == (2, 24, 24, 3)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_views_are_mixed_as_the_image_is(kind):
  import jax

  image = np.random.default_rng(1).random((4, 8, 8, 3), np.float32)
  views = {"same": image, "double": image.repeat(2, 1).repeat(2, 2)}
  batch = Batch(image, np.arange(4), np.ones(4), views=views)
  mix = step_views.Mix(**{kind: 1.0})
  found = step_views.mixed(batch, jax.random.key(3), mix, classes=0, crops=1)
  assert np.abs(found.image - image).max() > 0.05
  np.testing.assert_array_equal(found.views["same"], found.image)
  double = np.asarray(found.image).repeat(2, 1).repeat(2, 2)
  np.testing.assert_allclose(found.views["double"], double, atol=1e-6)
