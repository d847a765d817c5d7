"""Large JPEGs are decoded no larger than their views need."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from kd_jax.data import examples
from kd_jax.data.formats import decode
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.sources import folder

PHOTO = load_sample_image("china.jpg")
HEIGHT, WIDTH = PHOTO.shape[:2]


def jpeg(image=PHOTO, **options):
  data = io.BytesIO()
  Image.fromarray(image).save(data, "JPEG", quality=92, **options)
  return data.getvalue()


def turned(orientation):
  exif = Image.Exif()
  exif[274] = orientation
  return jpeg(exif=exif.tobytes())


@pytest.mark.parametrize("reduction", decode.REDUCTIONS)
def test_sides_are_divided_and_colours_stay(reduction):
  found = decode.decode(jpeg(), "photo", reduction=reduction)
  assert found.shape == (-(-HEIGHT // reduction), -(-WIDTH // reduction), 3)
  # PIL's draft mode asks libjpeg for the same.
  image = Image.open(io.BytesIO(jpeg()))
  image.draft("RGB", (WIDTH // reduction, HEIGHT // reduction))
  theirs = np.asarray(image).astype(int)
  assert np.abs(theirs - found).max() <= 2


def test_other_files_keep_their_size():
  data = io.BytesIO()
  Image.fromarray(PHOTO).save(data, "PNG")
  assert decode.jpeg_size(data.getvalue()) is None
  found = decode.decode(data.getvalue(), "photo", reduction=8)
  np.testing.assert_array_equal(found, PHOTO)
  cmyk = io.BytesIO()
  Image.fromarray(PHOTO).convert("CMYK").save(cmyk, "JPEG")
  assert decode.jpeg_size(cmyk.getvalue()) is None
  assert decode.jpeg_size(b"\xff\xd8\xff") is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_known_before_decoding_and_turning(orientation):
  data = turned(orientation)
  for rotate in (False, True):
    size = decode.jpeg_size(data, exif_rotation=rotate)
    whole = decode.decode(data, "photo", exif_rotation=rotate)
    assert size == whole.shape[:2]
    small = decode.decode(data, "photo", exif_rotation=rotate, reduction=4)
    assert small.shape[:2] == tuple(-(-side // 4) for side in size)


def visits(place, **fields):
  source = examples.Decoded(folder.Source(str(place)))
  views = Preprocess(image_size=32, **fields)
  return [examples.Train(source, views, 3).visit(0, i) for i in range(4)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  place = tmp_path_factory.mktemp("photos")
  for i, data in enumerate((jpeg(), turned(6), jpeg(PHOTO[::-1]), jpeg())):
    (place / f"{i}.jpg").write_bytes(data)
  return place


@pytest.mark.parametrize("crops", [1, 3])
def test_views_are_the_same_but_for_what_resizing_loses(photos, crops):
  whole, small = (
    visits(photos, num_crops=crops, dct_scaling=on) for on in (False, True)
  )
  for one, other in zip(whole, small, strict=True):
    # Boxes and sizes are those of the whole image: banks hold for both.
    np.testing.assert_array_equal(one["geometry"], other["geometry"])
    apart = np.abs(one["image"].astype(int) - other["image"])
    assert 0 < apart.mean() < 6
  mirrored = np.abs(
    whole[0]["image"].astype(int) - small[0]["image"][:, :, ::-1]
  )
  assert mirrored.mean() > 12


def test_the_smallest_view_says_how_far(monkeypatch):
  views = Preprocess(image_size=16, num_crops=2, dct_scaling=True)
  boxes = iter([(0, 0, 130, 400, 0, 0, 0), (0, 0, 300, 300, 0, 0, 0)] * 4)
  monkeypatch.setattr("kd_jax.data.preprocess._draw", lambda *_: next(boxes))
  assert views.reduces
  assert views.reduction((400, 400), lambda k: None) == 4  # 130 / 32
  larger = Preprocess(image_size=64, num_crops=2, dct_scaling=True)
  assert larger.reduction((400, 400), lambda k: None) == 1
  assert not Preprocess().reduces


def test_small_images_are_as_without(tmp_path):
  for i in range(4):
    (tmp_path / f"{i}.jpg").write_bytes(jpeg(PHOTO[i::8, ::8].copy()))
  whole, small = (visits(tmp_path, dct_scaling=on) for on in (False, True))
  for one, other in zip(whole, small, strict=True):
    np.testing.assert_array_equal(one["image"], other["image"])


def test_fingerprints_of_older_views_hold_and_errors():
  off, on = Preprocess(), Preprocess(dct_scaling=True)
  assert "dct_scaling" not in off.stated()
  assert on.fingerprint() != off.fingerprint()
  with pytest.raises(ValueError, match="dct_scaling=True has no effect"):
    Preprocess(augment="none", dct_scaling=True)
  with pytest.raises(ValueError, match="canvas=256 crops on the device, after"):
    Preprocess(canvas=256, dct_scaling=True, train_interpolation="bilinear")
