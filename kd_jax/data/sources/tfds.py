"""A data set that TensorFlow Datasets prepared, read without TensorFlow.

Example: Source('imagenet2012', 'train', per_class=128) is KDEP's 10 %.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64

from kd_jax import interfaces
from kd_jax.data.formats import tfds_boxes, tfds_features, tfds_prepared
from kd_jax.data.formats.masks import LabelMap, decode, label_map
from kd_jax.data.formats.tfds_records import Records, columns
from kd_jax.data.sources import splits, subset
from kd_jax.types import MarkedRecord, Marks, Record


@dataclasses.dataclass(frozen=True)
class Source(interfaces.DataSource):
  """Records as encoded images, straight from array_record or TFRecord files.

  Only the image and the label of a record are taken from it, and its mask if
  that is asked for. Cityscapes for segmentation is Source(
  'cityscapes/semantic_segmentation', 'train', masks=True, mask_classes=19,
  mapping='cityscapes').

  Attributes:
    dataset: 'imagenet2012', 'voc/2007' or 'my_ds/config:1.0.0'; without a
      version, the newest one that is prepared.
    split: 'train', a part such as 'train[:10%]', or several: 'train+test'.
    data_dir: where data sets are prepared; '' is $TFDS_DATA_DIR, or
      ~/tensorflow_datasets.
    labels: False hides the labels (-1) and makes `num_classes` 0.
    per_class: keep so many records of every class, drawn with `seed` from
      `split`; 0 keeps all. It reads the split once, see `tfds_records.columns`.
    percent: keep this share of the records of `split`, drawn with `seed`.
    seed: of the draw.
    image_key: feature that holds the image; '' is what the data set declares
      as its input, or the only image there is.
    label_key: feature that holds the label; '' is what the data set declares
      as its target, or the only class label there is. Without any there are
      no labels.
    skip_corrupt: an image that cannot be decoded is replaced by another one,
      instead of an error.
    masks: True reads the class of every pixel too, for segmentation.
    mask_key: feature that holds it; '' is the image that the data set declares
      as its target, or the only one of one channel.
    mask_classes: names of the classes of masks, or a text file with a name per
      line, or their number; () is what the data set says.
    ignore: value of pixels without a class; -1 where there is none.
    mapping: from values to classes, see `formats.masks.label_map`.
    boxes: True reads objects too, for detection; the split is read once for
      the sizes of its images.
    box_key: feature that holds them; '' is the only one with boxes and classes.

  Raises:
    ValueError: the data set is unknown, not prepared, or damaged; no such
      config, version, split or feature; several features to choose from; or
      too few records for the draw.
  """

  dataset: str
  split: str
  data_dir: str = ""
  labels: bool = True
  per_class: int = 0
  percent: float = 100.0
  seed: int = 0
  image_key: str = ""
  label_key: str = ""
  skip_corrupt: bool = False
  masks: bool = False
  mask_key: str = ""
  mask_classes: int | str | tuple[str, ...] = ()
  ignore: int = 255
  mapping: str | tuple[int, ...] = ()
  boxes: bool = False
  box_key: str = ""

  def __post_init__(self) -> None:
    for name in ("mask_classes", "mapping"):
      value = getattr(self, name)
      if not isinstance(value, int | str):
        # Configs hold lists; the dataclass must stay hashable.
        object.__setattr__(self, name, tuple(value))
    _ = self._image_key, self.class_names, self._rows, self.mask_names
    _ = self.box_names
    # Missing files are found now, not in the middle of an epoch.
    _ = [self._prepared.splits[name].stats for name in self._origins]

  def __getstate__(self) -> dict[str, Any]:
    # Workers open files themselves; what they need is read again.
    return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

  @functools.cached_property
  def _prepared(self) -> tfds_prepared.Prepared:
    return tfds_prepared.load(self.dataset, self.data_dir)

  @functools.cached_property
  def _parts(self) -> tuple[tuple[str, int, int], ...]:
    """(split, start, stop) of every part of `split`."""
    every = self._prepared.splits
    sizes = {name: len(shards) for name, shards in every.items()}
    parts = [splits.parse(part, sizes) for part in self.split.split("+")]
    names = [name for name, _, _ in parts]
    if len(set(names)) < len(names):
      raise ValueError(
        f"split={self.split!r} names a split twice; records would repeat. "
        "Write one part of each"
      )
    return tuple(parts)

  @functools.cached_property
  def _origins(self) -> dict[str, int]:
    """Where each split begins in `_records`."""
    names = [name for name, _, _ in self._parts]
    lengths = [len(self._prepared.splits[name]) for name in names]
    starts = np.cumsum([0, *lengths]).tolist()
    return dict(zip(names, starts[:-1], strict=True))

  @functools.cached_property
  def _rows(self) -> interfaces.Numbers:
    """Where every record is in `_records`."""
    ranges = [
      range(self._origins[name] + start, self._origins[name] + stop)
      for name, start, stop in self._parts
    ]
    if len(ranges) == 1 and not self.drawn:
      return ranges[0]
    rows = np.concatenate([np.asarray(part, np.int64) for part in ranges])
    return rows[self._draw(rows)]

  def _draw(self, rows: np.ndarray) -> np.ndarray:
    try:
      return subset.draw(
        len(rows),
        labels=self._column("label")[rows] if self.per_class else None,
        per_class=self.per_class,
        percent=self.percent,
        seed=self.seed,
        class_names=self._classes() if self.per_class else (),
      )
    except ValueError as error:
      raise ValueError(f"dataset={self.dataset!r}: {error}") from error

  def _column(self, field: str) -> np.ndarray:
    needed = self.labels or self.per_class
    keys = {
      "label_key": self._label_key if needed else "",
      "name_key": tfds_features.name_key(self._prepared),
    }
    tables = [columns(self._prepared, name, **keys) for name in self._origins]
    return np.concatenate([table[field] for table in tables])

  @functools.cached_property
  def _records(self) -> Records:
    return Records(self._prepared, tuple(self._origins))

  @functools.cached_property
  def _image_key(self) -> str:
    mask = self._mask_key if self.masks else ""
    return tfds_features.image_key(self._prepared, self.image_key, mask)

  @functools.cached_property
  def _mask_key(self) -> str:
    return tfds_features.mask_key(self._prepared, self.mask_key)

  @functools.cached_property
  def _mask_labels(self) -> LabelMap:
    known = tfds_features.mask_names(self._prepared, self._mask_key)
    try:
      return label_map(self.mask_classes or known, self.ignore, self.mapping)
    except ValueError as error:
      raise ValueError(
        f"masks of {self._prepared.name}, mask_classes: {error}"
      ) from error

  @functools.cached_property
  def _label_key(self) -> str:
    return tfds_features.label_key(self._prepared, self.label_key)

  def _classes(self) -> tuple[str, ...]:
    key = self._label_key
    return tuple(self._prepared.features[key].names) if key else ()

  @interfaces.computed_once
  def class_names(self) -> tuple[str, ...]:
    """Names of the labels, of the whole data set; empty if it has none."""
    return self._classes() if self.labels else ()

  @interfaces.computed
  def num_classes(self) -> int:
    """Number of classes of the data set, or 0 where there are no labels."""
    return len(self.class_names)

  @interfaces.computed
  def mask_names(self) -> tuple[str, ...]:
    """Names of the classes in masks; () where masks are not asked for."""
    return self._mask_labels.names if self.masks else ()

  @functools.cached_property
  def _box_key(self) -> str:
    return tfds_boxes.box_key(self._prepared, self.box_key)

  @interfaces.computed_once
  def box_names(self) -> tuple[str, ...]:
    """Names of the classes of objects; () where boxes are not asked for."""
    if not self.boxes:
      return ()
    return tfds_boxes.box_names(self._prepared, self._box_key)

  def objects(self, index: int) -> Marks:
    """See the base; without masks."""
    return self._objects(index, self._records[int(self._rows[index])])

  def _objects(self, index: int, record: Mapping[str, Any]) -> Marks:
    size = tfds_boxes.size_of(record[self._image_key].bytes_list.value[0])
    try:
      return tfds_boxes.objects(self._prepared, self._box_key, record, size)
    except ValueError as error:
      raise ValueError(f"{self.describe(index)}: {error}") from error

  @functools.cached_property
  def _sizes(self) -> Int64[np.ndarray, "n 2"]:
    key, names = self._image_key, self._origins
    found = [tfds_boxes.sizes(self._prepared, name, key) for name in names]
    return np.concatenate(found)[np.asarray(self._rows)]

  def sizes(self) -> Int64[np.ndarray, "n 2"] | None:
    """Height and width of every image, where boxes are asked for."""
    return self._sizes if self.boxes else None

  @interfaces.computed
  def drawn(self) -> bool:
    """Whether only a draw of the records is kept."""
    return self.per_class != 0 or self.percent != 100

  @interfaces.computed_once
  def fingerprint(self) -> str:
    """16 hex digits of names, sizes and which records; labels play no part."""
    digest = hashlib.sha256(f"{self._prepared.name}\0".encode())
    digest.update(f"{self._image_key}\0{self._parts}\0".encode())
    for name in self._origins:
      files = self._prepared.splits[name].identity(times=False)
      digest.update(f"{files}\0".encode(errors="surrogateescape"))
    if self.drawn:
      digest.update(np.ascontiguousarray(self._rows).tobytes())
    return digest.hexdigest()[:16]

  def ids(self) -> Iterator[str]:
    """A name for every record, in order.

    The name of the file it was made of, if the data set has such a feature
    and no two are alike; this reads the splits once, see
    `tfds_records.columns`.
    Else what `describe` says.
    """
    if tfds_features.name_key(self._prepared):
      names = self._column("name")
      if len(np.unique(names)) == len(names):
        return (_text(names[row]) for row in self._rows)
    return map(self.describe, range(len(self)))

  def all_labels(self) -> list[int]:
    """The label of every record, in order; -1 where there are none.

    This reads the splits once, see `tfds_records.columns`.
    """
    if not self.num_classes:
      return [-1] * len(self)
    return self._column("label")[np.asarray(self._rows)].tolist()

  def describe(self, index: int) -> str:
    """'<data set>/<split>/<number in the split>' of a record."""
    row = int(self._rows[index])
    name, start = max(
      (item for item in self._origins.items() if item[1] <= row),
      key=lambda item: item[1],
    )
    return f"{self._prepared.name}/{name}/{row - start}"

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    record = self._records[int(self._rows[index])]
    label = -1
    if self.num_classes:
      label = record[self._label_key].int64_list.value[0]
    image = record[self._image_key].bytes_list.value[0]
    found: Record = {"image": image, "label": label, "id": index % len(self)}
    if self.masks:
      data = record[self._mask_key].bytes_list.value[0]
      name = f"{self._mask_key} of {self.describe(index)}"
      found["mask"] = self._mask_labels(decode(data, name), name)
    if not self.boxes:
      return found
    marked: MarkedRecord = {**found, **self._objects(index, record)}
    return marked


def _text(name: np.bytes_) -> str:
  return name.decode(errors="surrogateescape")
