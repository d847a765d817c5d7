"""Everything that lies in the image folders of real users."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from kd_jax.data.formats import decode as decode_lib
from kd_jax.data.formats.decode import decode
from kd_jax.data.sources import folder

PHOTO = Image.fromarray(load_sample_image("china.jpg")).resize((48, 32))
RGB = np.asarray(PHOTO)
GRAY = np.asarray(PHOTO.convert("L"))
RNG = np.random.RandomState(0)
DEEP = RNG.randint(0, 65536, (6, 5, 4)).astype(np.uint16)
# To 8 bits by value, not by cutting the lower byte off.
SHALLOW = np.round(DEEP / 257).astype(np.uint8)
ORIENTED = {
  1: lambda x: x,
  2: np.fliplr,
  3: lambda x: np.rot90(x, 2),
  4: np.flipud,
  5: lambda x: np.swapaxes(x, 0, 1),
  6: lambda x: np.rot90(x, -1),
  7: lambda x: np.swapaxes(np.rot90(x, 2), 0, 1),
  8: np.rot90,
}


def save(image, kind, **options):
  buffer = io.BytesIO()
  # A copy, since savers leave their settings in the image.
  image.copy().save(buffer, kind, **options)
  return buffer.getvalue()


def chunk(kind, data):
  body = kind + data
  return (
    struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
  )


def png(pixels, depth, colour, *before):
  """A PNG from packed rows; nothing but the standard."""
  height, width = pixels.shape[:2]
  rows = pixels.astype(">u2" if depth == 16 else np.uint8).reshape(height, -1)
  if depth < 8:
    bits = np.unpackbits(rows[..., None], axis=-1)[..., 8 - depth :]
    rows = np.packbits(bits.reshape(height, -1), axis=-1)
  data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
  head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
  chunks = [chunk(b"IHDR", head), *before, chunk(b"IDAT", data)]
  return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def tiff(pixels):
  order = pixels[..., [2, 1, 0, 3] if pixels.shape[2] > 1 else [0]]
  return cv2.imencode(".tif", np.ascontiguousarray(order))[1].tobytes()


def exif(orientation):
  tags = Image.Exif()
  tags[0x0112] = orientation
  return tags


def marked_ycck(data):
  """The same channels, now said to be YCCK by Adobe's marker."""
  at = data.find(b"Adobe") + 11
  return data[:at] + b"\2" + data[at + 1 :]


def three(gray):
  return np.repeat(np.asarray(gray)[..., None], 3, axis=-1)


def as_pil(data):
  return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


FINE = {"quality": 95, "subsampling": 0}
JPEG = save(PHOTO, "JPEG", **FINE)
PNG = save(PHOTO, "PNG")
CMYK = save(PHOTO.convert("CMYK"), "JPEG", quality=95)
WEBP = save(PHOTO, "WEBP", lossless=True)
GIF = save(PHOTO.convert("P"), "GIF")
UPSIDE = PHOTO.transpose(Image.Transpose.ROTATE_180)
NUMBERS = RNG.randint(0, 256, (6, 8)).astype(np.uint8)
COLOURS = RNG.randint(0, 256, (256, 3)).astype(np.uint8)
CLEAR = RNG.randint(0, 256, (6, 8, 4)).astype(np.uint8)
PALETTE = chunk(b"PLTE", COLOURS.tobytes())
ALPHAS = chunk(b"tRNS", NUMBERS.tobytes())
NOISE = chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(b"x" * 60))
NOISE += chunk(b"gAMA", struct.pack(">I", 1)) + chunk(b"tEXt", b"k\0v")
NOISE += chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 3_000_000))
ANIMATION = {"save_all": True, "append_images": [UPSIDE, PHOTO]}
WHITE_IS_0 = tiff(DEEP[..., :1]).replace(
  struct.pack("<HHIHH", 262, 3, 1, 1, 0), struct.pack("<HHIHH", 262, 3, 1, 0, 0)
)

# File: (bytes, pixels, largest difference). Lossless kinds give known pixels;
# JPEG must give PIL's, and the photo within 30 levels.
GOOD = {
  "baseline.jpg": (JPEG, as_pil(JPEG), 0),
  "capital.JPEG": (JPEG, RGB, 30),
  "progressive.jpg": (
    save(PHOTO, "JPEG", progressive=True, **FINE),
    RGB,
    40,
  ),
  "gray.jpg": (save(PHOTO.convert("L"), "JPEG", quality=95), three(GRAY), 12),
  "rgb_not_ycc.jpg": (save(PHOTO, "JPEG", quality=95, keep_rgb=True), RGB, 20),
  "cmyk.jpg": (CMYK, RGB, 25),
  "ycck.jpg": (marked_ycck(CMYK), as_pil(marked_ycck(CMYK)), 0),
  "stray_bytes.jpg": (JPEG[:20] + b"xx" + JPEG[20:], as_pil(JPEG), 0),
  "garbage_after.jpg": (JPEG + b"\xff\xd8junk" * 99, as_pil(JPEG), 0),
  "mpo.jpg": (save(PHOTO, "MPO", **FINE, **ANIMATION), RGB, 30),
  "rgb.png": (PNG, RGB, 0),
  "profiles.png": (PNG[:33] + NOISE + PNG[33:], RGB, 0),
  "garbage_after.png": (PNG + b"junk" * 99, RGB, 0),
  "gray.png": (png(NUMBERS, 8, 0), three(NUMBERS), 0),
  "1_bit.png": (png(NUMBERS & 1, 1, 0), three(NUMBERS & 1) * 255, 0),
  "4_bits.png": (png(NUMBERS & 15, 4, 0), three(NUMBERS & 15) * 17, 0),
  "palette.png": (png(NUMBERS, 8, 3, PALETTE), COLOURS[NUMBERS], 0),
  "clear_palette.png": (
    png(NUMBERS, 8, 3, PALETTE, ALPHAS),
    COLOURS[NUMBERS],
    0,
  ),
  "rgba.png": (png(CLEAR, 8, 6), CLEAR[..., :3], 0),
  "gray_alpha.png": (png(CLEAR[..., :2], 8, 4), three(CLEAR[..., 0]), 0),
  "gray_16.png": (png(DEEP[..., 0], 16, 0), three(SHALLOW[..., 0]), 0),
  "gray_alpha_16.png": (png(DEEP[..., :2], 16, 4), three(SHALLOW[..., 0]), 0),
  "rgb_16.png": (png(DEEP[..., :3], 16, 2), SHALLOW[..., :3], 0),
  "rgba_16.png": (png(DEEP, 16, 6), SHALLOW[..., :3], 0),
  "animated.png": (save(PHOTO, "PNG", **ANIMATION), RGB, 0),
  "lossy.webp": (save(PHOTO, "WEBP", quality=98), RGB, 60),
  "lossless.webp": (WEBP, RGB, 0),
  "animated.webp": (save(PHOTO, "WEBP", lossless=True, **ANIMATION), RGB, 0),
  "still.gif": (GIF, as_pil(GIF), 0),
  "animated.gif": (
    save(PHOTO.convert("P"), "GIF", save_all=True, append_images=[UPSIDE]),
    as_pil(GIF),
    0,
  ),
  "plain.bmp": (save(PHOTO, "BMP"), RGB, 0),
  "palette.bmp": (save(Image.fromarray(NUMBERS), "BMP"), three(NUMBERS), 0),
  "pages.tif": (
    save(PHOTO, "TIFF", save_all=True, append_images=[UPSIDE.copy()]),
    RGB,
    0,
  ),
  "lzw.tiff": (save(PHOTO, "TIFF", compression="tiff_lzw"), RGB, 0),
  "cmyk.tif": (save(PHOTO.convert("CMYK"), "TIFF"), RGB, 0),
  "gray_16.tif": (tiff(DEEP[..., :1]), three(SHALLOW[..., 0]), 0),
  "big_endian.tif": (
    save(Image.fromarray(DEEP[..., 0].astype(">u2")), "TIFF"),
    three(SHALLOW[..., 0]),
    0,
  ),
  "white_is_0.tif": (WHITE_IS_0, 255 - three(SHALLOW[..., 0]), 0),
  "rgb_16.tif": (tiff(DEEP), SHALLOW[..., :3], 0),
  "in_truth_a_png.jpg": (PNG, RGB, 0),
  "in_truth_a_jpeg.webp": (JPEG, as_pil(JPEG), 0),
}


def resized(data, at, layout, *sides):
  size = struct.calcsize(layout)
  return data[:at] + struct.pack(layout, *sides) + data[at + size :]


SOF = JPEG.find(b"\xff\xc0") + 5
THUMBNAIL = save(PHOTO.resize((8, 8)), "JPEG")
WITH_THUMBNAIL = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(THUMBNAIL) + 2)
WITH_THUMBNAIL += THUMBNAIL + JPEG[2:]
SPLIT = PNG.find(b"IDAT") + 30
HUGE = "more than 178,956,970 pixels: make it smaller"
CORRUPT = "corrupt, truncated or not an image"
BAD = {
  "empty.jpg": (b"", "0 bytes, not an image"),
  "text.jpg": (b"no image\n", f"{CORRUPT}: it is text"),
  "page.jpg": (b"\n<!DOCTYPE html><title>404", "an HTML page, not an image"),
  "lfs.png": (b"version https://git-lfs.github.com/", "run 'git lfs pull'"),
  "drawing.png": (b"<?xml version='1.0'?><svg/>", "SVG, which cannot be read"),
  "archive.jpg": (b"PK\3\4" + bytes(30), "a zip archive, which cannot"),
  "paper.jpg": (b"%PDF-1.4", "a PDF, which cannot be read"),
  "iphone.jpg": (b"\0\0\0\x24ftypheic" + bytes(30), "HEIC, which cannot"),
  "new.jpg": (b"\0\0\0\x20ftypavif" + bytes(30), "AVIF, which cannot"),
  "film.jpg": (b"\0\0\0\x20ftypisom" + bytes(30), "a video, which cannot"),
  "canon.tif": (b"II*\0\x10\0\0\0CR\2\0" + bytes(30), "a camera's raw file"),
  "fuji.jpg": (b"FUJIFILMCCD-RAW 0201", "a camera's raw file"),
  "zeros.jpg": (bytes(999), "only zeros at its start"),
  "noise.jpg": (RNG.bytes(999), CORRUPT),
  "half.jpg": (JPEG[: len(JPEG) // 2], CORRUPT),
  "half_with_thumbnail.jpg": (WITH_THUMBNAIL[:-200], CORRUPT),
  "half_then_zeros.jpg": (JPEG[:-400] + bytes(400), CORRUPT),
  "header.jpg": (JPEG[:30], CORRUPT),
  "start.jpg": (JPEG[:3], CORRUPT),
  "half_cmyk.jpg": (CMYK[: len(CMYK) // 2], CORRUPT),
  "half.png": (PNG[: len(PNG) // 2], CORRUPT),
  "start.png": (PNG[:8], "an image of no pixels"),
  "header.png": (PNG[:40], CORRUPT),
  "flipped.png": (PNG[:SPLIT] + b"\0\xff\0" + PNG[SPLIT + 3 :], CORRUPT),
  "half.webp": (WEBP[: len(WEBP) // 2], CORRUPT),
  "start.webp": (WEBP[:12], "corrupt"),
  "half.gif": (GIF[: len(GIF) // 2], CORRUPT),
  "start.gif": (GIF[:6], CORRUPT),
  "half.bmp": (save(PHOTO, "BMP")[:-99], CORRUPT),
  "half.tif": (save(PHOTO, "TIFF", compression="tiff_lzw")[:-900], CORRUPT),
  "float.tif": (
    save(PHOTO.convert("F"), "TIFF"),
    "32 bits per pixel, in a range",
  ),
  "raw.tif": (save(PHOTO, "TIFF", tiffinfo={50706: b"\1\4\0\0"}), "camera's"),
  "bomb.jpg": (resized(JPEG, SOF, ">HH", 65535, 65535), HUGE),
  "bomb_cmyk.jpg": (
    resized(CMYK, CMYK.find(b"\xff\xc0") + 5, ">HH", 65535, 65535),
    HUGE,
  ),
  "bomb.png": (resized(PNG, 16, ">II", 60000, 60000), HUGE),
  "long_chunk.png": (resized(PNG, 33, ">I", 29001), CORRUPT),
  "too_wide.png": (resized(PNG, 16, ">II", 48_000_000, 1), CORRUPT),
  "bomb.webp": (b"RIFF____WEBPVP8X" + bytes(8) + b"\xff" * 6, HUGE),
  "bomb.gif": (resized(GIF, 6, "<HH", 65535, 65535), HUGE),
  "bomb.bmp": (resized(save(PHOTO, "BMP"), 18, "<ii", 60000, 60000), HUGE),
  "zero.png": (resized(PNG, 16, ">II", 0, 5), "an image of no pixels"),
  "zero.jpg": (resized(JPEG, SOF, ">HH", 0, 48), "an image of no pixels"),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  cache = tmp_path_factory.mktemp("cache")
  root = tmp_path_factory.mktemp("photos")
  for name, (data, *_) in {**GOOD, **BAD}.items():
    (root / name).write_bytes(data)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("KD_JAX_CACHE", str(cache))
    yield folder.Source(str(root))


def outcome(data, path, rotation):
  try:
    return decode(data, path, exif_rotation=rotation)
  except ValueError as error:
    return str(error)


def mistake(name, path, found):
  """What is wrong about an outcome; empty if nothing is."""
  if name in BAD:
    good = str(found).startswith(f"{path}: ") and BAD[name][1] in found
    return "" if good and found.endswith("emove or replace it.") else found
  _, expected, most = GOOD[name]
  if isinstance(found, str) or found.shape != expected.shape:
    return found
  difference = np.abs(found.astype(int) - expected).max()
  good = found.dtype == np.uint8 and difference <= most
  return "" if good and found.flags.c_contiguous else difference


@pytest.mark.parametrize("rotation", [False, True])
def test_every_file_gives_its_image_or_says_why_not(source, rotation):
  names = list(source.ids())
  assert names == sorted([*GOOD, *BAD]) and len(names) >= 70
  wrong = {}
  for row, name in enumerate(names):
    path = source.describe(row)
    found = outcome(source[row]["image"], path, rotation)
    said = mistake(name, path, found)
    if not isinstance(said, str) or said:
      wrong[name] = said
  assert wrong == {}


def test_the_tolerances_tell_images_apart():
  for name, (_, expected, most) in GOOD.items():
    other = expected[::-1, ::-1].astype(int)
    assert np.abs(other - expected).max() > 2 * most, name
    assert expected.std() > 20, name


def test_odd_files_are_no_noise_on_stderr(source, capfd):
  loud = (
    "half.jpg",
    "profiles.png",
    "start.png",
    "half.png",
    "stray_bytes.jpg",
  )
  for row, name in enumerate(source.ids()):
    if name in loud or name.endswith((".gif", ".bmp", ".webp")):
      try:
        decode(source[row]["image"], name)
      except ValueError:
        continue
  assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "CMYK"])
def test_exif_rotation(kind):
  options = {"lossless": True} if kind == "WEBP" else {}
  photo = PHOTO.convert("CMYK") if kind == "CMYK" else PHOTO
  kind = "JPEG" if kind == "CMYK" else kind
  plain = decode(save(photo, kind, **options), "x")
  for orientation, turn in ORIENTED.items():
    data = save(photo, kind, exif=exif(orientation), **options)
    upright = decode(data, "x", exif_rotation=True)
    np.testing.assert_array_equal(upright, turn(plain))
    # PIL, and so torchvision, turns TIFF alone.
    raw = turn(plain) if kind == "TIFF" else plain
    np.testing.assert_array_equal(decode(data, "x"), raw)


# PIL warns where it meets such a tag, once.
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("photo", [PHOTO, PHOTO.convert("CMYK")])
def test_corrupt_exif_does_no_harm(photo):
  plain = save(photo, "JPEG")
  for junk in (b"", b"\xff" * 20, b"MM\0*\0\0\0\x08\0\x01\x01\x12", b"II*\0"):
    tag = b"Exif\0\0" + junk
    head = b"\xff\xe1" + struct.pack(">H", len(tag) + 2) + tag
    data = plain[:2] + head + plain[2:]
    for rotation in (False, True):
      found = decode(data, "x", exif_rotation=rotation)
      np.testing.assert_array_equal(found, decode(plain, "x"))


def test_plain_jpeg_does_not_touch_pil(monkeypatch):
  kinds = [save(PHOTO, "JPEG", progressive=p) for p in (False, True)]
  kinds += [save(PHOTO, "JPEG", exif=exif(6)), WITH_THUMBNAIL]
  expected = [as_pil(data) for data in kinds]

  def never(*_, **__):
    raise AssertionError("slow")

  monkeypatch.setattr(decode_lib.Image, "open", never)
  for data, pixels in zip(kinds, expected, strict=True):
    np.testing.assert_array_equal(decode(data, "x"), pixels)


def test_unreadable_files_are_named(tmp_path, monkeypatch):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path / "cache"))
  (tmp_path / "r").mkdir()
  (tmp_path / "r/a.jpg").write_bytes(JPEG)
  source = folder.Source(str(tmp_path / "r"))

  def refuse(*_):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr("builtins.open", refuse)
  with pytest.raises(ValueError, match="a.jpg: cannot be read, Permission den"):
    source[0]
  assert os.path.exists(source.describe(0))
