"""Writes images as a data set of few large files, for `data.name='tfds'`."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from kd_jax.build import images
from kd_jax.data.formats import tfds_write


def run(config: ConfigDict, where: str | Path) -> Path:
  """Writes the sources `config.train` and `config.test`.

  Returns:
    The directory of the data set; nothing is written to `where`.

  Raises:
    ValueError: no source, or anything `tfds_write.write` refuses.
  """
  del where  # other runs read the result, from `data_dir`
  parts = {"train": config.train, "test": config.test}
  sources = {
    split: images.source(part.to_dict())
    for split, part in parts.items()
    if part.name
  }
  place = tfds_write.write(
    sources,
    config.dataset,
    config.data_dir,
    records_per_shard=config.records_per_shard,
  )
  counts = ", ".join(f"{name}: {len(s)}" for name, s in sources.items())
  data_dir = f" --config.data.data_dir={config.data_dir}"
  print(
    f"{place} ({counts} images); read it with --config.data.name=tfds "
    f"--config.data.dataset={config.dataset} --config.data.split=train"
    f"{data_dir if config.data_dir else ''}"
  )
  return place
