"""Encoded bytes to RGB pixels.

Plain files go through cv2, which is faster and gives the pixels of PIL; PIL
reads the odd kinds. What a file is follows from its bytes, not its extension.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

FORMATS = "JPEG, PNG, WebP, GIF, BMP and TIFF"
# Above it, PIL takes a file for one made to exhaust memory.
MAX_PIXELS = 178_956_970

# Of the 16-bit values; cutting their lower byte off would darken.
_LEVELS = ((np.arange(65536) + 128) // 257).astype(np.uint8)
_DEFLATE = 1032  # the most that it can shrink data
_CORRUPT = "corrupt, truncated or not an image"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"eXIf")
_PIL = (b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NOT_IMAGES = {
  b"PK\x03\x04": "a zip archive",
  b"%PDF": "a PDF",
  b"\x1f\x8b": "a gzip archive",
  b"8BPS": "a Photoshop file",
  b"\0\0\1\0": "an icon",
  b"\0\0\0\x0cjP  ": "JPEG 2000",
  b"\0\0\0\x0cJXL ": "JPEG XL",
  b"\xff\x0a": "JPEG XL",
  b"FUJIFILM": "a camera's raw file",
  b"version https://git-lfs": "a Git LFS pointer: run 'git lfs pull'",
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": "a camera's raw file"}
_BRANDS |= dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "HEIC")
_TIFF_KIND, _TIFF_BITS, _TIFF_PHOTOMETRIC = 254, 258, 262
_TIFF_SUBFILES, _TIFF_DNG = 330, 50706


REDUCTIONS = (1, 2, 4, 8)
"""What the sides of a JPEG can be divided by while it is decoded."""

_REDUCED = {
  2: cv2.IMREAD_REDUCED_COLOR_2,
  4: cv2.IMREAD_REDUCED_COLOR_4,
  8: cv2.IMREAD_REDUCED_COLOR_8,
}
_ORIENTATION, _TURNED = 274, (5, 6, 7, 8)  # of EXIF


def decode(
  data: bytes, name: str, *, exif_rotation: bool = False, reduction: int = 1
) -> UInt8[np.ndarray, "h w 3"]:
  """Decodes JPEG, PNG, WebP, GIF, BMP or TIFF, the first frame or page.

  Gray is repeated, CMYK converted as PIL does, 16 bits scaled to 8. Alpha is
  dropped, not composited, as in timm and torchvision.

  Args:
    data: the encoded image.
    name: what to call it in an error message, a path for instance.
    exif_rotation: turn the image as its EXIF tag says. Photos of phones need
      it; timm and torchvision do not, since ImageNet's tags are partly wrong.
      TIFF is always turned, as they do.
    reduction: one of `REDUCTIONS`: libjpeg leaves out the highest frequencies
      of a plain JPEG, whose sides become ceil(side / reduction). Other images
      keep their size.

  Raises:
    ValueError: empty, corrupt, truncated, of another format, or larger than
      179 million pixels.
  """
  if not data:
    raise ValueError(f"{name}: 0 bytes, not an image. Remove or replace it.")
  try:
    return _read(data, exif_rotation, reduction)
  except _Unreadable as error:
    raise ValueError(
      f"{name}: {error} ({len(data)} bytes; {FORMATS} can be read). Remove or "
      "replace it."
    ) from error


def jpeg_size(
  data: bytes, *, exif_rotation: bool = False
) -> tuple[int, int] | None:
  """Height and width that `decode` gives; None unless it is a plain JPEG."""
  if not data.startswith(b"\xff\xd8\xff"):
    return None
  at = _frame(data)
  try:
    if not _is_plain_jpeg(data, at):
      return None
  except _Unreadable:
    return None  # `decode` says why
  height, width = _big(data, at + 5, 2), _big(data, at + 7, 2)
  turned = exif_rotation and _is_turned(data[:at])
  return (width, height) if turned else (height, width)


def _is_turned(head: bytes) -> bool:
  """Whether EXIF exchanges height and width."""
  at = head.find(b"Exif\0\0")
  if at < 0:
    return False
  exif = Image.Exif()
  try:
    exif.load(head[at:])
  except Exception:  # PIL's parser raises whatever it runs into.
    return False
  return exif.get(_ORIENTATION) in _TURNED


class _Unreadable(Exception):
  """Says what is wrong with the bytes."""


def _read(data: bytes, rotate: bool, reduction: int) -> np.ndarray:
  flags = cv2.IMREAD_COLOR_RGB
  turn = 0 if rotate else cv2.IMREAD_IGNORE_ORIENTATION
  flags |= turn
  if data.startswith(b"\xff\xd8\xff"):
    if not _is_plain_jpeg(data, _frame(data)):
      return _by_pil(data, rotate)
    if reduction > 1:
      # These flags know blue, green, red only.
      return _by_cv2(data, _REDUCED[reduction] | turn)[..., ::-1]
    return _by_cv2(data, flags)
  if data.startswith(_PNG):
    return _png(data, flags)
  if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
    _check_size(*_webp_size(data))
    return _by_cv2(data, flags)
  if data.startswith(_PIL) and data[8:10] != b"CR":
    return _by_pil(data, rotate)
  raise _Unreadable(_describe(data))


def _frame(data: bytes) -> int:
  """Where a JPEG's frame header is, or stray bytes before it."""
  at = 2
  while data[at : at + 1] == b"\xff" and at + 9 < len(data):
    marker = data[at + 1]
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
      break
    # Any number of fill bytes may come before a marker.
    at += 1 if marker == 0xFF else 2 + _big(data, at + 2, 2)
  return at


def _is_plain_jpeg(data: bytes, at: int) -> bool:
  """Whether cv2 reads it as PIL does: 8 bits, gray or three colours.

  Raises:
    _Unreadable: it is too large, or ends early, which shows in gray or in
      nothing where the rest was filled with zeros.
  """
  # Only of the image itself: thumbnails, with an end, come before its frame.
  if data.rfind(b"\xff\xd9", at) < 0 or at + 9 >= len(data):
    raise _Unreadable(_CORRUPT)
  # libjpeg reports stray bytes on stderr, PIL skips them.
  if data[at] != 0xFF:
    return False
  _check_size(_big(data, at + 7, 2), _big(data, at + 5, 2))
  marker, depth, channels = data[at + 1], data[at + 4], data[at + 9]
  # Up to C2 it is baseline or progressive.
  return marker <= 0xC2 and depth == 8 and channels in (1, 3)


def _png(data: bytes, flags: int) -> UInt8[np.ndarray, "h w 3"]:
  """By cv2, which sees what belongs to the pixels only.

  Of profiles and texts libpng may warn on stderr, and on a chunk that ends
  outside the file cv2 spends seconds.
  """
  width, height = _big(data, 16, 4), _big(data, 20, 4)
  _check_size(width, height)
  if width * height > 8 * _DEFLATE * len(data):
    raise _Unreadable(_CORRUPT)  # before memory is taken for it
  kept, at, kind = [data[:8]], 8, b""
  while kind != b"IEND":
    end = at + 12 + _big(data, at, 4)
    kind = data[at + 4 : at + 8]
    if end > len(data) or (at == 8) != (kind == b"IHDR"):
      raise _Unreadable(_CORRUPT)
    if kind in _PNG_CHUNKS:
      kept.append(data[at:end])
    at = end
  deep = data[24] == 16
  image = _by_cv2(b"".join(kept), flags | cv2.IMREAD_ANYDEPTH * deep)
  return _to_8_bits(image) if deep else image


def _webp_size(data: bytes) -> tuple[int, int]:
  """Width and height."""
  if data[12:16] == b"VP8X":
    return 1 + _little(data, 24, 3), 1 + _little(data, 27, 3)
  if data[12:16] == b"VP8L":
    bits = _little(data, 21, 4)
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
  return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF


def _by_cv2(data: bytes, flags: int) -> np.ndarray:
  try:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
  except cv2.error as error:
    raise _Unreadable(_CORRUPT) from error
  if image is None:
    raise _Unreadable(_CORRUPT)
  return image


def _by_pil(data: bytes, rotate: bool) -> UInt8[np.ndarray, "h w 3"]:
  formats = ("JPEG", "GIF", "BMP", "TIFF")
  try:
    with Image.open(io.BytesIO(data), formats=formats) as image:
      _check_size(*image.size)
      if isinstance(image, TiffImageFile) and _is_deep_colour(image):
        # PIL would keep the upper bytes only.
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        return _to_8_bits(_by_cv2(data, flags)[..., ::-1])
      image.load()
      if rotate:
        ImageOps.exif_transpose(image, in_place=True)
      return _to_rgb(image)
  except _Unreadable:
    raise
  except Image.DecompressionBombError as error:
    raise _Unreadable(_too_large()) from error
  except Exception as error:  # PIL's plugins raise whatever they run into.
    raise _Unreadable(_CORRUPT) from error


def _is_deep_colour(image: TiffImageFile) -> bool:
  """Whether a TIFF has 16 bits per colour.

  Raises:
    _Unreadable: it is the raw file of a camera, and would show a thumbnail.
  """
  tags = image.tag_v2
  thumbnail = tags.get(_TIFF_KIND, 0) & 1 and _TIFF_SUBFILES in tags
  if thumbnail or _TIFF_DNG in tags:
    raise _Unreadable("a camera's raw file, not an image")
  return max(tags.get(_TIFF_BITS, (1,))) == 16 and not image.mode.startswith(
    "I;16"
  )


def _to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
  if image.mode.startswith("I;16"):
    gray = np.asarray(image).astype(np.uint16)
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if tags.get(_TIFF_PHOTOMETRIC) == 0:  # white is zero
      gray = 65535 - gray
    return np.repeat(_to_8_bits(gray)[..., None], 3, axis=-1)
  if image.mode in ("I", "F"):
    raise _Unreadable("32 bits per pixel, in a range that is not known")
  image.info.pop("transparency", None)
  return np.asarray(image.convert("RGB"))


def _to_8_bits(image: UInt16[np.ndarray, ...]) -> UInt8[np.ndarray, ...]:
  return _LEVELS[image]


def _check_size(width: int, height: int) -> None:
  if not width or not height:
    raise _Unreadable("corrupt: an image of no pixels")
  if width * height > MAX_PIXELS:
    raise _Unreadable(_too_large())


def _too_large() -> str:
  return f"an image of more than {MAX_PIXELS:,} pixels: make it smaller"


def _describe(data: bytes) -> str:
  """What bytes are that no reader knows."""
  head = data[:512]
  if head[4:8] == b"ftyp":
    return f"{_BRANDS.get(head[8:12], 'a video')}, which cannot be read"
  for magic, what in _NOT_IMAGES.items():
    if head.startswith(magic):
      return f"{what}, which cannot be read"
  if head[8:10] == b"CR":
    return "a camera's raw file, which cannot be read"
  text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
  if text.startswith((b"<!doctype html", b"<html")):
    return "an HTML page, not an image"
  if b"<svg" in text:
    return "SVG, which cannot be read"
  if not any(head):
    return "only zeros at its start, not an image"
  if head.isascii() and head.decode().replace("\n", " ").isprintable():
    return f"{_CORRUPT}: it is text"
  return _CORRUPT


def _big(data: bytes, at: int, size: int) -> int:
  return int.from_bytes(data[at : at + size], "big")


def _little(data: bytes, at: int, size: int) -> int:
  return int.from_bytes(data[at : at + size], "little")
