"""Any source as a TFDS data set of few large files, without TensorFlow.

Network file systems read thousands of large files faster than millions of
small ones.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from tqdm import tqdm

from kd_jax import disk
from kd_jax.data.formats import tfds_prepared
from kd_jax.interfaces import DataSource
from kd_jax.types import Record

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

_VERSION = "1.0.0"
_THREADS = 8  # shards written at a time


def write(
  sources: Mapping[str, DataSource],
  dataset: str,
  data_dir: str = "",
  *,
  records_per_shard: int = 8192,
) -> Path:
  """Writes all splits of a data set; it appears at once and whole.

  Images keep their bytes and records their order; pixels become PNG. Labels
  are kept if the first source has some.

  Args:
    sources: what each split holds, by name.
    dataset: what to call it: small letters, digits and underscores.
    data_dir: as in `tfds.Source`.
    records_per_shard: 8192 are about 1 GB of ImageNet.

  Returns:
    Its directory.

  Raises:
    ValueError: a bad name or number, a data set that exists, sources with
      different classes, a record that cannot be read, or a full disk.
  """
  _check(sources, dataset, records_per_shard)
  place = tfds_prepared.root(data_dir) / dataset / _VERSION
  if place.exists():
    raise ValueError(
      f"{str(place)!r} exists; remove it, or choose another name"
    )
  part = place.with_name(f"incomplete.{secrets.token_hex(4)}")
  try:
    with disk.writing(f"the data set {dataset}", place.parent):
      part.mkdir(parents=True)
      _write_splits(sources, dataset, part, records_per_shard)
      part.rename(place)
  except (OSError, RuntimeError) as error:
    raise ValueError(f"cannot write {str(place)!r}: {error}") from error
  finally:
    shutil.rmtree(part, ignore_errors=True)
  return place


def _check(
  sources: Mapping[str, DataSource], dataset: str, records_per_shard: int
) -> None:
  if not re.fullmatch(r"[a-z][a-z0-9_]*", dataset):
    raise ValueError(
      f"dataset={dataset!r}; it must be small letters, digits and "
      "underscores, such as 'my_images'"
    )
  if records_per_shard < 1:
    raise ValueError(f"records_per_shard={records_per_shard}; at least 1")
  if not sources:
    raise ValueError("there is no split to write; name at least one source")
  classes = {split: _classes(source) for split, source in sources.items()}
  if len(set(classes.values())) > 1:
    counts = {split: len(names) for split, names in classes.items()}
    raise ValueError(
      f"the splits have different classes ({counts}); give all the same "
      "directories, or set labels=False for each"
    )


def _classes(source: DataSource) -> tuple[str, ...]:
  numbers = map(str, range(source.num_classes))
  return tuple(source.class_names or numbers)


def _write_splits(
  sources: Mapping[str, DataSource],
  dataset: str,
  place: Path,
  records_per_shard: int,
) -> None:
  import tensorflow_datasets as tfds  # slow to import

  kinds: dict[str, Any] = {
    "image": tfds.features.Image(),
    "file_name": tfds.features.Text(),
  }
  names = _classes(next(iter(sources.values())))
  if names:
    kinds["label"] = tfds.features.ClassLabel(names=names)
  features = tfds.features.FeaturesDict(kinds)
  infos = []
  for split, source in sources.items():
    starts = range(0, len(source), records_per_shard)
    shards = [range(len(source))[s : s + records_per_shard] for s in starts]
    head = place / f"{dataset}-{split}.array_record"
    sizes = _write_split(source, features, head, shards)
    infos.append(
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=[len(rows) for rows in shards],
        num_bytes=sum(sizes),
      )
    )
  tfds.folder_dataset.write_metadata(
    data_dir=place,
    features=features,
    split_infos=infos,
    version=_VERSION,
    supervised_keys=("image", "label") if names else None,
    check_data=False,
  )


def _write_split(
  source: DataSource,
  features: tfds.features.FeaturesDict,
  head: Path,
  shards: Sequence[range],
) -> list[int]:
  """Bytes of the records of each shard."""
  named = list(source.ids())

  def write_shard(number: int) -> int:
    # Slow to import; written in C++, without stubs.
    from array_record.python import (
      array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
    )

    path = f"{head}-{number:05d}-of-{len(shards):05d}"
    # Images are compressed already.
    writer = array_record_module.ArrayRecordWriter(
      path, "group_size:1,uncompressed"
    )
    size = 0
    try:
      for index in shards[number]:
        example = _example(source[index], named[index], features)
        data = features.serialize_example(example)
        writer.write(data)
        size += len(data)
    finally:
      writer.close()
    return size

  with futures.ThreadPoolExecutor(_THREADS) as pool:
    done = pool.map(write_shard, range(len(shards)))
    title = f"writing {head.name}"
    return list(tqdm(done, title, len(shards), delay=2, disable=None))


def _example(
  record: Record, name: str, features: tfds.features.FeaturesDict
) -> dict[str, Any]:
  image = record["image"]
  if not isinstance(image, bytes):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    image = file.getvalue()
  example: dict[str, Any] = {"image": image, "file_name": os.fsencode(name)}
  if "label" in features:
    example["label"] = record["label"]
  return example
