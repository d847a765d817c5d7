"""Which features of a TFDS data set are its image, label, mask and name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kd_jax.data.formats.tfds_prepared import Prepared

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

# Where data sets keep the name of the file that a record was made of.
_NAME_KEYS = ("file_name", "filename", "image/filename", "image/file_name")


def image_key(prepared: Prepared, wanted: str = "", mask: str = "") -> str:
  """The feature that holds the image.

  Args:
    prepared: the data set.
    wanted: its key; '' is what the data set declares, or the only image.
    mask: key of the mask, which is not the image.

  Raises:
    ValueError: no such feature, none, several, or not 8 or 16 bits.
  """
  import tensorflow_datasets as tfds  # slow to import

  key = _choose(prepared, "image_key", wanted, tfds.features.Image, mask)
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


def mask_key(prepared: Prepared, wanted: str = "") -> str:
  """The feature that holds the class of every pixel.

  Args:
    prepared: the data set.
    wanted: its key; '' is the image that the data set declares as its target,
      or the only image of one channel.

  Raises:
    ValueError: no such feature, none, or several.
  """
  import tensorflow_datasets as tfds  # slow to import

  features = prepared.features
  kind = tfds.features.Image
  images = sorted(key for key, f in features.items() if isinstance(f, kind))
  target = [key for key in prepared.supervised[1:2] if key in images]
  single = [key for key in images if features[key].shape[-1] == 1]
  choice = [wanted] if wanted else target or single
  if len(choice) == 1 and choice[0] in images:
    return choice[0]
  raise ValueError(
    f"mask_key={wanted!r}: {prepared.name} has the images {images}, of which "
    f"{single} have one channel; set mask_key to the one with the classes of "
    "pixels, or masks=False"
  )


def mask_names(prepared: Prepared, key: str) -> tuple[str, ...]:
  """Names of a mask's classes, or () where the data set does not say."""
  import tensorflow_datasets as tfds  # slow to import

  feature = prepared.features[key]
  named = isinstance(feature, tfds.features.LabeledImage)
  return tuple(feature.names or ()) if named else ()


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
  without: str = "",
) -> str:
  features = {k: f for k, f in prepared.features.items() if k != without}
  found = sorted(key for key, f in features.items() if isinstance(f, kind))
  if wanted and wanted not in found:
    raise ValueError(
      f"{field}={wanted!r}; of the features {sorted(features)} of "
      f"{prepared.name}, {found} can be {field}"
    )
  # The input comes before the target, which may be of the same kind.
  declared = [key for key in prepared.supervised if key in found][:1]
  choice = [wanted] if wanted else declared or found
  if len(choice) > 1:
    raise ValueError(
      f"{prepared.name} has several: {choice}; set {field} to one of them"
    )
  return choice[0] if choice else ""
