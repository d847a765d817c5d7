import io

import numpy as np
import pytest
from PIL import Image

from kd_jax.data.formats import masks

RAW = np.random.default_rng(0).integers(0, 4, (9, 13), np.uint8)


def encode(raw, kind="PNG", **options):
  image = raw if isinstance(raw, Image.Image) else Image.fromarray(raw)
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def palette(raw):
  image = Image.new("P", raw.shape[::-1])
  # Equal colours, and none of them a gray: only the indices tell.
  image.putpalette([250, 3, 7] * 256)
  image.putdata(raw.ravel().tolist())
  return image


def test_gray_and_palettes_give_the_stored_values():
  files = [encode(RAW), encode(RAW, "TIFF"), encode(RAW, "BMP")]
  files += [encode(palette(RAW)), encode(palette(RAW), bits=2)]
  files += [encode(palette(RAW), "GIF"), encode(RAW.astype(np.uint16))]
  for data in files:
    np.testing.assert_array_equal(masks.decode(data, "m"), RAW)
  large = RAW.astype(np.uint16) * 9000
  for kind in ("PNG", "TIFF"):
    found = masks.decode(encode(large, kind), "m")
    np.testing.assert_array_equal(found, large)
  two = Image.fromarray((RAW % 2 * 255).astype(np.uint8)).convert("1")
  np.testing.assert_array_equal(masks.decode(encode(two), "m"), RAW % 2)


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_of_gray_are_not_stretched(bits):
  # A gray PNG of few bits, made of one with a palette: kind 3 becomes 0.
  data = bytearray(encode(palette(RAW), bits=bits))
  start = data.index(b"PLTE") - 4
  del data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
  data[25] = 0
  data[29:33] = _crc(bytes(data[12:29]))
  assert Image.open(io.BytesIO(bytes(data))).mode == "L"
  np.testing.assert_array_equal(masks.decode(bytes(data), "m"), RAW)


def _crc(chunk):
  import zlib

  return zlib.crc32(chunk).to_bytes(4, "big")


def test_values_become_classes():
  raw = np.array([[0, 1, 2, 255]], np.uint8)
  plain = masks.label_map(("a", "b", "c"), 255, ())
  assert plain(raw, "m").tolist() == [[0, 1, 2, -1]]
  assert plain(raw, "m").dtype == np.int16
  shifted = masks.label_map(2, 255, "shift")
  assert shifted.names == ("0", "1")
  assert shifted(raw, "m").tolist() == [[-1, 0, 1, -1]]
  own = masks.label_map(2, -1, [1, -1, 0])
  assert own(raw[:, :3], "m").tolist() == [[1, -1, 0]]
  wide = masks.LabelMap(tuple(map(str, range(300))), 65535)
  assert wide(np.array([[299, 65535]], np.uint16), "m").tolist() == [[299, -1]]


def test_cityscapes():
  found = masks.label_map(19, 255, "cityscapes")
  raw = np.arange(34, dtype=np.uint8)[None]
  kept = [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
  classes = found(raw, "m")[0]
  assert classes[kept].tolist() == list(range(19))
  assert (np.delete(classes, kept) == -1).all()


def test_names_from_a_file(tmp_path):
  (tmp_path / "names.txt").write_text("road\n\n side walk \n")
  found = masks.label_map("names.txt", 255, (), str(tmp_path))
  assert found.names == ("road", "side walk")
  with pytest.raises(
    ValueError, match="'no.txt': cannot be read .*name of a cla"
  ):
    masks.label_map("no.txt", 255, (), str(tmp_path))


@pytest.mark.parametrize(
  ("fields", "value", "match"),
  [
    ((21, 255, ()), 37, r"m holds 37; classes are 0\.\.20, ignore 255\."),
    ((21, -1, ()), 255, r"m holds 255; classes are 0\.\.20, none is ignored"),
    ((2, 255, [0, 1]), 2, r"m holds 2; mapping has values 0\.\.1, ignore 255"),
  ],
)
def test_values_out_of_range(fields, value, match):
  with pytest.raises(ValueError, match=match):
    masks.label_map(*fields)(np.array([[0, value]], np.uint8), "m")


@pytest.mark.parametrize(
  ("fields", "match"),
  [
    (((), 255, ()), "classes names 0; it must be 1 to 32767: their names"),
    ((300, 255, ()), "ignore=255 is class 255 too; set ignore"),
    ((3, 1, [0, 2]), "ignore=1 is class 2 too"),
    ((3, 70000, ()), "ignore=70000; it must be a value of 8 or 16 bits"),
    ((3, 255, [0, 3]), r"mapping leads to 3; classes are 0\.\.2"),
    ((3, 255, "voc"), r"mapping='voc'; .* \['cityscapes', 'shift'\]"),
  ],
)
def test_contradictions(fields, match):
  with pytest.raises(ValueError, match=match):
    masks.label_map(*fields)


@pytest.mark.parametrize(
  ("data", "match"),
  [
    (encode(np.zeros((4, 4, 3), np.uint8)), "m: its pixels are RGB, not label"),
    (encode(np.zeros((4, 4), np.uint8), "JPEG"), "m: JPEG changes labels"),
    (encode(np.zeros((4, 4), np.float32), "TIFF"), "its pixels are F, not"),
    (b"", r"m: unreadable \(0 bytes"),
    (encode(palette(RAW))[:-40], r"m: unreadable \(\d+ bytes; corrupt"),
    (b"\x89PNG\r\n\x1a\n", r"m: unreadable \(8 bytes"),
  ],
)
def test_what_is_no_mask(data, match):
  with pytest.raises(ValueError, match=match):
    masks.decode(data, "m")
