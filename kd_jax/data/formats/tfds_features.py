"""Which features of a TFDS data set are its image, label and file name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kd_jax.data.formats.tfds_prepared import Prepared

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

# Where data sets keep the name of the file that a record was made of.
_NAME_KEYS = ("file_name", "filename", "image/filename", "image/file_name")


def image_key(prepared: Prepared, wanted: str = "") -> str:
  """The feature that holds the image.

  Args:
    prepared: the data set.
    wanted: its key; '' is what the data set declares, or the only image.

  Raises:
    ValueError: no such feature, none, several, or not 8 or 16 bits.
  """
  import tensorflow_datasets as tfds  # slow to import

  key = _choose(prepared, "image_key", wanted, tfds.features.Image)
  if not key:
    raise ValueError(
      f"{prepared.name} has no image, only {sorted(prepared.features)}; "
      "choose another data set"
    )
  kind = np.dtype(prepared.features[key].np_dtype)
  if kind not in (np.uint8, np.uint16):
    raise ValueError(
      f"{prepared.name}: image {key!r} holds {kind} values; 8 and 16 bit "
      "images can be read. Set image_key to another feature"
    )
  return key


def label_key(prepared: Prepared, wanted: str = "") -> str:
  """The feature that holds the class, or '' where there is none.

  Args:
    prepared: the data set.
    wanted: its key; '' is what the data set declares, or the only class
      label. Those of boxes, inside 'objects' for instance, do not count.

  Raises:
    ValueError: no such feature, or several.
  """
  import tensorflow_datasets as tfds  # slow to import

  return _choose(prepared, "label_key", wanted, tfds.features.ClassLabel)


def name_key(prepared: Prepared) -> str:
  """The feature that holds the name of the image's file, or ''."""
  import tensorflow_datasets as tfds  # slow to import

  features = prepared.features
  found = (key for key in _NAME_KEYS if key in features)
  texts = (k for k in found if isinstance(features[k], tfds.features.Text))
  return next(texts, "")


def _choose(
  prepared: Prepared,
  field: str,
  wanted: str,
  kind: type[tfds.features.FeatureConnector],
) -> str:
  features = prepared.features
  found = sorted(key for key, f in features.items() if isinstance(f, kind))
  if wanted and wanted not in found:
    raise ValueError(
      f"{field}={wanted!r}; of the features {sorted(features)} of "
      f"{prepared.name}, {found} can be {field}"
    )
  declared = [key for key in prepared.supervised if key in found]
  choice = [wanted] if wanted else declared or found
  if len(choice) > 1:
    raise ValueError(
      f"{prepared.name} has several: {choice}; set {field} to one of them"
    )
  return choice[0] if choice else ""
