import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from kd_jax.data.formats.decode import decode

PHOTO = Image.fromarray(load_sample_image("china.jpg")).crop((0, 0, 161, 93))
KINDS = {
  "jpeg": ("JPEG", {"quality": 90}),
  "progressive": ("JPEG", {"progressive": True}),
  "png": ("PNG", {}),
  "webp": ("WEBP", {"lossless": True}),
}


def encode(image, kind, **more):
  buffer = io.BytesIO()
  name, options = KINDS[kind]
  image.save(buffer, name, **options, **more)
  return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_equal_pil(kind):
  data = encode(PHOTO, kind)
  expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
  image = decode(data, "x")
  assert (image.dtype, image.shape) == (np.uint8, (93, 161, 3))
  # libjpeg-turbo builds differ by a level in chroma upsampling.
  assert np.abs(image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_gray_is_repeated(kind):
  gray = PHOTO.convert("L")
  image = decode(encode(gray, kind), "x")
  assert image.shape == (93, 161, 3)
  assert (image == image[..., :1]).all()
  assert np.abs(image[..., 0] - np.asarray(gray, int)).mean() < 3


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_alpha_is_dropped(kind):
  clear = PHOTO.copy()
  clear.putalpha(255)
  np.testing.assert_array_equal(decode(encode(clear, kind), "x"), PHOTO)


def test_palette_and_16_bit():
  palette = PHOTO.quantize(200)
  np.testing.assert_array_equal(
    decode(encode(palette, "png"), "x"), palette.convert("RGB")
  )
  deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024)
  image = decode(encode(deep, "png"), "x")
  np.testing.assert_array_equal(image[..., 0], np.round(np.asarray(deep) / 257))


def test_exif_rotation_is_ignored_unless_asked_for():
  exif = Image.Exif()
  exif[0x0112] = 6
  data = encode(PHOTO, "jpeg", exif=exif)
  np.testing.assert_array_equal(
    decode(data, "x"), decode(encode(PHOTO, "jpeg"), "x")
  )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.9, 0.999])
def test_truncated(kind, keep):
  data = encode(PHOTO, kind)
  with pytest.raises(ValueError, match=r"cat/1\.jpg: corrupt, truncated or"):
    decode(data[: int(keep * len(data))], "cat/1.jpg")


@pytest.mark.parametrize("kind", KINDS)
def test_gray_truncated(kind):
  data = encode(PHOTO.convert("L"), kind)
  with pytest.raises(ValueError, match="truncated"):
    decode(data[:-40], "x")


def test_corrupt():
  match = r"a\.jpg: corrupt.*text \(5 bytes; JPEG, PNG, WebP, GIF, BMP and TIFF"
  with pytest.raises(ValueError, match=match):
    decode(b"hello", "a.jpg")
  with pytest.raises(ValueError, match=r"a\.jpg: 0 bytes, not an image"):
    decode(b"", "a.jpg")
