"""Two folders: images, and masks with the class of every pixel.

Examples: VOC 2012 is Source(dir, 'JPEGImages', 'SegmentationClass', classes=21,
list_file='ImageSets/Segmentation/train.txt'); Cityscapes is Source(dir,
'leftImg8bit/train', 'gtFine/train', classes=19, mapping='cityscapes',
image_suffix='_leftImg8bit', mask_suffix='_gtFine_labelIds'); ADE20K is
Source(dir, 'images/training', 'annotations/training', classes=150,
mapping='shift').
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from kd_jax import interfaces
from kd_jax.data.formats import folder_listing
from kd_jax.data.formats.masks import LabelMap, decode, label_map
from kd_jax.data.sources import splits
from kd_jax.types import Record


@dataclasses.dataclass(frozen=True)
class Source(interfaces.DataSource):
  """Images as encoded bytes, with masks of the same path but for its end.

  images/a/1.jpg belongs to masks/a/1.png. Both folders are listed once, see
  `formats.folder_listing`. Images are read as they are stored: EXIF tags turn
  neither them nor their masks.

  Attributes:
    dir: where both folders are.
    images: folder of the images, below `dir`.
    masks: folder of the masks, below `dir`: gray images of 8 or 16 bits, or
      images with a palette, whose indices count.
    classes: names of the classes, or a text file with a name per line
      (relative to `dir`), or their number.
    ignore: value of pixels without a class; -1 where there is none.
    mapping: () where the value of a pixel is its class. Else the class of the
      values 0, 1, 2, ..., -1 for none; or 'cityscapes' or 'shift', see
      `formats.masks.label_map`.
    image_suffix: end of the images' names before the extension; files without
      it are passed over.
    mask_suffix: the same of the masks.
    list_file: text file with the pairs to take, relative to `dir`: a path per
      line as in `images`, without suffix and extension. '' takes all, sorted.
    split: 'all', or a part of them such as 'all[:50%]'.

  Raises:
    ValueError: no such folder or file, no pair, an image without a mask or a
      mask without an image, two files of one pair, a line of `list_file`
      without a pair, bad classes, or a bad split; for a record, an unreadable
      mask, or one with a value that is no class.
  """

  dir: str
  images: str = "images"
  masks: str = "masks"
  classes: int | str | tuple[str, ...] = ()
  ignore: int = 255
  mapping: str | tuple[int, ...] = ()
  image_suffix: str = ""
  mask_suffix: str = ""
  list_file: str = ""
  split: str = "all"
  num_classes = 0

  def __post_init__(self) -> None:
    for name in ("classes", "mapping"):
      value = getattr(self, name)
      if not isinstance(value, int | str):
        # Configs hold lists; the dataclass must stay hashable.
        object.__setattr__(self, name, tuple(value))
    _ = self._labels, self._mask(0)  # masks of another kind show at once

  @property
  def _place(self) -> str:
    return os.path.expanduser(self.dir)

  @functools.cached_property
  def _labels(self) -> LabelMap:
    return label_map(self.classes, self.ignore, self.mapping, self._place)

  @functools.cached_property
  def _folders(self) -> dict[str, folder_listing.Index]:
    """Listings of both folders."""
    found = {}
    for field in ("images", "masks"):
      folder = os.path.join(self._place, getattr(self, field))
      if not os.path.isdir(folder):
        raise ValueError(
          f"{field}={getattr(self, field)!r}: there is no folder {folder!r}; "
          f"set --config.data.dir and --config.data.{field} to where they are"
        )
      found[field] = folder_listing.find(folder)
    return found

  @functools.cached_property
  def _pairs(self) -> Int64[np.ndarray, "n 2"]:
    """Positions of image and mask in their listings, of all that is kept."""
    found = {
      field: _stems(index, getattr(self, f"{field[:-1]}_suffix"))
      for field, index in self._folders.items()
    }
    names = self._listed(found["images"], found["masks"])
    _, start, stop = splits.parse(self.split, {"all": len(names)})
    kept = names[start:stop]
    rows = [[found[field][name] for name in kept] for field in found]
    return np.array(rows, np.int64).T

  def _listed(
    self, images: dict[str, int], of_masks: dict[str, int]
  ) -> list[str]:
    """Names of the pairs that are asked for, before the split."""
    if not images.keys() & of_masks.keys():
      raise ValueError(
        f"dir={self.dir!r}: no image of {self.images!r} has a mask in "
        f"{self.masks!r}; {_some(images)} and {_some(of_masks)} have to be "
        "the same but for image_suffix, mask_suffix and the extension"
      )
    asked = self._lines() if self.list_file else sorted({*images, *of_masks})
    sides = (("images", images, "mask"), ("masks", of_masks, "image"))
    for field, known, other in sides:
      missing = [name for name in asked if name not in known]
      if missing:
        raise ValueError(
          f"{os.path.join(self._place, getattr(self, field))}: no "
          f"{field[:-1]} for the {'line' if self.list_file else other} "
          f"{missing[0]!r} ({len(missing)} of {len(asked)} lack one). Add it, "
          "or name the pairs to take in a text file, list_file"
        )
    return asked

  def _lines(self) -> list[str]:
    path = os.path.join(self._place, os.path.expanduser(self.list_file))
    try:
      with open(path, encoding="utf-8") as file:
        names = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
      raise ValueError(
        f"list_file={self.list_file!r}: cannot be read ({error}); it "
        "must be a text file with the name of a pair per line"
      ) from error
    if not names or len(set(names)) < len(names):
      what = "names no pair" if not names else "names a pair twice"
      raise ValueError(f"list_file={path!r} {what}; write one line for each")
    return names

  @interfaces.computed
  def mask_names(self) -> tuple[str, ...]:
    """Names of the classes in masks."""
    return self._labels.names

  @interfaces.computed_once
  def fingerprint(self) -> str:
    """16 hex digits of the images' paths and sizes, in order."""
    return self._folders["images"].digest(self._pairs[:, 0])

  def ids(self) -> Iterator[str]:
    """Paths of all images in order, relative to their folder."""
    items = self._folders["images"].items(self._pairs[:, 0])
    return (os.fsdecode(path) for path, _ in items)

  def all_labels(self) -> list[int]:
    """-1 for every record: images have no label as a whole."""
    return [-1] * len(self)

  def describe(self, index: int) -> str:
    """The path of an image, for error messages."""
    return self._path("images", index)

  def _path(self, field: str, index: int) -> str:
    row = self._pairs[index, int(field == "masks")]
    name = self._folders[field].path(row)
    return os.path.join(self._place, getattr(self, field), name)

  def _read(self, field: str, index: int) -> bytes:
    row = self._pairs[index, int(field == "masks")]
    folder = os.path.join(self._place, getattr(self, field))
    return self._folders[field].read(folder, row)

  def _mask(self, index: int) -> np.ndarray:
    path = self._path("masks", index)
    return self._labels(decode(self._read("masks", index), path), path)

  def __len__(self) -> int:
    return len(self._pairs)

  def __getitem__(self, index: int) -> Record:
    return {
      "image": self._read("images", index),
      "label": -1,
      "id": index % len(self),
      "mask": self._mask(index),
    }


def _stems(index: folder_listing.Index, suffix: str) -> dict[str, int]:
  """{path without suffix and extension: row} of a listing.

  Raises:
    ValueError: two files differ in their extension only.
  """
  found: dict[str, int] = {}
  for row, (path, _) in enumerate(index.items(range(len(index)))):
    name = os.path.splitext(os.fsdecode(path))[0]
    if not name.endswith(suffix):
      continue
    name = name.removesuffix(suffix)
    if name in found:
      raise ValueError(
        f"{index.path(found[name])!r} and {index.path(row)!r} differ in their "
        "extension only, so that it is not clear which one to take; move one"
      )
    found[name] = row
  return found


def _some(names: dict[str, int]) -> str:
  return repr(next(iter(names))) if names else "nothing"
