"""What TensorFlow Datasets prepared on this disk, without TensorFlow.

A data set lies in <data_dir>/<name>[/<config>]/<version>; its code is not
needed to read it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_jax.resolve import near

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

FORMATS = ("array_record", "tfrecord")
"""File formats that can be read, the better one first."""

_NAME = re.compile(
  r"(?P<name>\w+)(?:/(?!\d+\.\d+\.\d+$)(?P<config>[\w.+-]+))?"
  r"(?:[:/](?P<version>\d+\.\d+\.\d+))?"
)


@dataclasses.dataclass(frozen=True)
class Shards:
  """The files of a split, or of several.

  Attributes:
    paths: the files, in order.
    lengths: records in each.
  """

  paths: tuple[str, ...]
  lengths: tuple[int, ...]

  def __len__(self) -> int:
    return sum(self.lengths)

  @functools.cached_property
  def stats(self) -> tuple[os.stat_result, ...]:
    """What the file system says about each.

    Raises:
      ValueError: some are missing.
    """
    missing = [path for path in self.paths if not os.path.isfile(path)]
    if missing:
      raise ValueError(
        f"{len(missing)} of {len(self.paths)} files are missing, such as "
        f"{missing[0]!r}; copy or prepare the data set again"
      )
    return tuple(os.stat(path) for path in self.paths)

  def identity(self, *, times: bool) -> str:
    """Names, records and sizes of the files.

    Args:
      times: also when each was written. Small array_record files are of equal
        sizes whatever they hold, but a copy may have other times.
    """
    names = [os.path.basename(path) for path in self.paths]
    kept = ("st_size", "st_mtime_ns") if times else ("st_size",)
    sizes = [[getattr(stat, name) for name in kept] for stat in self.stats]
    return repr((names, self.lengths, sizes))


@dataclasses.dataclass(frozen=True)
class Prepared:
  """One version of a data set.

  Attributes:
    name: with config and version, 'voc/2007/5.0.0'.
    features: what a record holds, TFDS features by key.
    supervised: keys of what the data set declares as input and target.
    splits: the files of every split.
    file_format: one of `FORMATS`.
  """

  name: str
  features: Mapping[str, Any]
  supervised: tuple[Any, ...]
  splits: Mapping[str, Shards]
  file_format: str


def load(dataset: str, data_dir: str = "") -> Prepared:
  """Finds a data set and reads what it says about itself.

  Args:
    dataset: 'name', 'name/config', either with ':1.0.0' for a version; else
      the newest one there is.
    data_dir: '' for $TFDS_DATA_DIR, or ~/tensorflow_datasets.

  Raises:
    ValueError: bad or unknown name, a data set, config or version that is not
      prepared, one whose config must be said, or a file format that needs
      TensorFlow.
  """
  parent = root(data_dir)
  place = _find(dataset, parent)
  import tensorflow_datasets as tfds  # slow to import

  info = tfds.builder_from_directory(place).info
  found = {kind.value for kind in info.available_file_formats()}
  kinds = [kind for kind in FORMATS if kind in found]
  if not kinds:
    raise ValueError(
      f"{str(place)!r} is stored as {sorted(found)}; {list(FORMATS)} can be "
      f"read. Move it away. {_how_to_prepare(dataset, parent)}"
    )
  if info.file_format is None or info.file_format.value != kinds[0]:
    info = tfds.builder_from_directory(place, file_format=kinds[0]).info
  if not isinstance(info.features, tfds.features.FeaturesDict):
    raise ValueError(
      f"{str(place)!r} has records without named features; prepare the data "
      "set with a FeaturesDict"
    )
  splits = {name: _shards(split) for name, split in info.splits.items()}
  return Prepared(
    info.full_name,
    dict(info.features),
    tuple(info.supervised_keys or ()),
    splits,
    kinds[0],
  )


def root(data_dir: str = "") -> Path:
  """Where data sets lie: `data_dir`, $TFDS_DATA_DIR or the default of TFDS."""
  place = data_dir or os.environ.get("TFDS_DATA_DIR", "")
  return Path(place or "~/tensorflow_datasets").expanduser()


def _shards(split: tfds.core.SplitInfo) -> Shards:
  paths = tuple(os.fspath(path) for path in split.filepaths)
  return Shards(paths, tuple(split.shard_lengths))


def _find(dataset: str, parent: Path) -> Path:
  """The directory of the version asked for."""
  match = _NAME.fullmatch(dataset)
  if match is None:
    raise ValueError(
      f"dataset={dataset!r} is not 'name', 'name/config' or "
      "'name/config:1.0.0', such as 'imagenet2012' or 'voc/2007'"
    )
  found = _versions(parent / match["name"])
  if not found:
    _raise_unprepared(dataset, match["name"], parent)
  config = match["config"] or (next(iter(found)) if len(found) == 1 else "")
  if config not in found:
    names = ["/".join(filter(None, (match["name"], c))) for c in found]
    raise ValueError(
      f"dataset={dataset!r} is not among what {str(parent)!r} holds: "
      f"{near(dataset, names)}; choose one of them. "
      f"{_how_to_prepare(dataset, parent)}"
    )
  version = match["version"] or found[config][-1]
  if version not in found[config]:
    raise ValueError(
      f"dataset={dataset!r} names version {version}; {str(parent)!r} has "
      f"{found[config]}. {_how_to_prepare(dataset, parent)}"
    )
  return parent / match["name"] / config / version


def _versions(folder: Path) -> dict[str, list[str]]:
  """{config, '' for none: its versions, oldest first}."""
  found: dict[str, list[str]] = {}
  for depth in ("*", "*/*"):
    for info in folder.glob(f"{depth}/dataset_info.json"):
      place = info.parent
      config = "" if place.parent == folder else place.parent.name
      if re.fullmatch(r"\d+\.\d+\.\d+", place.name):
        found.setdefault(config, []).append(place.name)
  for versions in found.values():
    versions.sort(key=lambda version: [int(n) for n in version.split(".")])
  return dict(sorted(found.items()))


def _raise_unprepared(dataset: str, name: str, parent: Path) -> None:
  import tensorflow_datasets as tfds  # slow to import

  known = set(tfds.list_builders(with_community_datasets=False))
  here = {place.name for place in parent.glob("*") if _versions(place)}
  if name not in known:
    raise ValueError(
      f"dataset={dataset!r}: TensorFlow Datasets knows no {name!r}, and "
      f"{str(parent)!r} has none. Prepared there: {near(name, here)}; known "
      f"and alike: {difflib.get_close_matches(name, known)}. Take one of "
      "these, or set data_dir to where it lies"
    )
  raise ValueError(
    f"dataset={dataset!r} is not prepared in {str(parent)!r} (prepared there: "
    f"{sorted(here)}); set data_dir if it lies elsewhere. "
    f"{_how_to_prepare(dataset, parent)}"
  )


def _how_to_prepare(dataset: str, parent: Path) -> str:
  # Not `tfds build`: it needs Apache Beam too, whatever the data set.
  build = f"tfds.builder({dataset!r}, data_dir={str(parent)!r}, "
  build += "file_format='array_record').download_and_prepare()"
  return (
    "To prepare it, once, where TensorFlow is installed: python -c "
    f'"import tensorflow_datasets as tfds; {build}". imagenet2012 and '
    "cityscapes first need their archives, downloaded by hand, in "
    f"{str(parent / 'downloads/manual')!r}"
  )
