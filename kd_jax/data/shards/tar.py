"""The samples of WebDataset's tar files, without unpacking them.

As in webdataset 1.0 (tariterators.py), files that follow one another and have
the same name up to the first dot of its last part are one sample, and what
comes after the dot, in small letters, says which part of it.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from kd_jax.data.shards import files
from kd_jax.data.shards.files import File

IMAGES = "jpg;jpeg;png;webp;gif;bmp;tif;tiff"
"""Parts that are images, unless a config names others."""

_AHEAD = 8 * 1024 * 1024  # of a tar in a bucket, whose headers are far apart
_NAME = re.compile(r"((?:.*/)?[^.]+)\.([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__(/|$)")
_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What is taken from a sample.

  Attributes:
    image: parts that are the image, with ';' between them.
    label: part that is the label: 'cls', or 'json:field'; '' for none.
  """

  image: str = IMAGES
  label: str = ""

  @property
  def images(self) -> tuple[str, ...]:
    """Parts that are the image."""
    return tuple(part.lower() for part in self.image.split(";"))

  @property
  def label_part(self) -> str:
    """The part that holds the label."""
    return self.label.partition(":")[0]


@dataclasses.dataclass(frozen=True)
class Sample:
  """Where the image of a sample is.

  Attributes:
    key: name of the sample.
    start: first byte of the image in the tar.
    size: its bytes.
    label: -1 where none is wanted.
  """

  key: str
  start: int
  size: int
  label: int = -1


def split_name(name: str) -> tuple[str, str] | None:
  """(sample, part) of a file in a tar; None if it belongs to no sample."""
  match = _NAME.fullmatch(name)
  if match is None or _META.match(name):
    return None
  return match[1], match[2].lower()


def parts(file: File) -> tuple[str, ...]:
  """The parts of the first sample of a tar.

  Raises:
    ValueError: it is no tar, is damaged, or holds no sample.
  """
  with files.opened(file, _AHEAD) as reader:
    for _, members in _groups(file, reader):
      return tuple(members)
  raise ValueError(_empty(file))


def samples(file: File, wanted: Wanted) -> list[Sample]:
  """All samples of a tar, in order.

  Raises:
    ValueError: it is no tar, is compressed, damaged, cut short or empty, or
      one of its samples has no image, several images, or a bad label.
  """
  with files.opened(file, _AHEAD) as reader:
    found = [
      _sample(file, reader, key, members, wanted)
      for key, members in _groups(file, reader)
    ]
  if not found:
    raise ValueError(_empty(file))
  return found


def _groups(
  file: File, reader: BinaryIO
) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
  """(key, {part: member}) of every sample."""
  key, members = "", {}
  for member in _members(file, reader):
    named = split_name(member.name)
    if named is None or not member.isreg():
      continue
    if member.issparse():
      raise ValueError(
        f"{file.path}: {member.name!r} is stored sparse; write the tar without "
        "--sparse"
      )
    if members and named[0] != key:
      yield key, members
      members = {}
    key, part = named
    if part in members:
      raise ValueError(
        f"{file.path}: sample {key!r} has two files .{part}; give every sample "
        "a name of its own"
      )
    members[part] = member
  if members:
    yield key, members


def _members(file: File, reader: BinaryIO) -> Iterator[tarfile.TarInfo]:
  if not file.size:
    raise ValueError(f"{file.path}: 0 bytes, not a tar. Remove or replace it.")
  try:
    # No compression: in a compressed tar nothing can be found.
    with tarfile.open(fileobj=reader, mode="r:") as archive:
      for member in archive:
        yield member
        # It would keep them all; type checkers do not know the list.
        archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
      end = archive.offset
  except (tarfile.TarError, EOFError) as error:
    raise ValueError(_damaged(file, str(error))) from error
  # For the library anything that is no header is the end.
  reader.seek(end)
  last = reader.read(_BLOCK)
  if len(last) < _BLOCK or any(last):
    raise ValueError(_damaged(file, f"no header and no end at byte {end}"))


def _damaged(file: File, why: str) -> str:
  head = files.read(file, 0, min(file.size, 6))
  for magic, kind in {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
  }.items():
    if head.startswith(magic):
      return (
        f"{file.path}: compressed ({kind}), so that no image can be read by "
        "itself; decompress it, images are small already"
      )
  return (
    f"{file.path}: damaged, cut short or not a tar ({why}); copy or write it "
    "again"
  )


def _empty(file: File) -> str:
  return (
    f"{file.path}: a tar without a sample: no file in it is named like "
    "0001.jpg. Remove it, or leave it out of urls."
  )


def _sample(
  file: File,
  reader: BinaryIO,
  key: str,
  members: dict[str, tarfile.TarInfo],
  wanted: Wanted,
) -> Sample:
  images = [part for part in wanted.images if part in members]
  if len(images) != 1:
    raise ValueError(_which(file, key, images, list(members)))
  image = members[images[0]]
  label = -1
  if wanted.label:
    text = _text(file, reader, members.get(wanted.label_part))
    label = _label(f"{file.path}: sample {key!r}", text, wanted)
  return Sample(key, image.offset_data, image.size, label)


def _which(
  file: File, key: str, images: Sequence[str], found: Sequence[str]
) -> str:
  if images:
    return (
      f"{file.path}: sample {key!r} has {len(images)} images, {list(images)}; "
      f"say which one with --config.data.image_key, such as {images[0]!r}"
    )
  return (
    f"{file.path}: sample {key!r} has no image, only {found}; set "
    "--config.data.image_key to what it is called, or take the sample out"
  )


def _text(
  file: File, reader: BinaryIO, member: tarfile.TarInfo | None
) -> str | None:
  if member is None:
    return None
  reader.seek(member.offset_data)
  return reader.read(member.size).decode(errors="replace")


def _label(where: str, text: str | None, wanted: Wanted) -> int:
  part, _, field = wanted.label.partition(":")
  if text is None:
    raise ValueError(
      f"{where} has no .{part}, where its label should be; set "
      "--config.data.label_key, or labels=False"
    )
  try:
    value = json.loads(text)[field] if field else text
    label = int(value)
    if label < 0 or isinstance(value, float) and value != label:
      raise ValueError
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f"{where}: its label, .{wanted.label}, is {text.strip()[:40]!r}; it must "
      "be a whole number from 0 on. Set --config.data.label_key, or "
      "labels=False"
    ) from error
  return label
