"""The same images as tars and as tables, by the projects' own libraries."""

import io

import datasets
import numpy as np
import webdataset as wds
from PIL import Image

from kd_jax.data.sources import digits, huggingface, webdataset


def images(count):
  """Digits of 8 x 8 pixels as PNG, with labels that are their positions."""
  source = digits.Source("train")
  for number in range(count):
    file = io.BytesIO()
    Image.fromarray(source[number]["image"]).save(file, "PNG")
    yield file.getvalue()


def write(folder, count, per_shard, per_group):
  """Tars in folder/tars, parquet in folder/tables."""
  (folder / "tars").mkdir(parents=True)
  found = list(images(count))
  pattern = f"{folder}/tars/a-%06d.tar"
  with wds.ShardWriter(pattern, maxcount=per_shard, verbose=0) as writer:
    for number, image in enumerate(found):
      writer.write({"__key__": f"{number:05d}", "png": image, "cls": number})
  table = datasets.Dataset.from_dict(
    {
      "image": [{"bytes": image, "path": None} for image in found],
      "label": np.arange(count),
    },
    datasets.Features(
      image=datasets.Image(), label=datasets.ClassLabel(num_classes=count)
    ),
  )
  datasets.disable_progress_bars()
  path = folder / "tables/train-00000-of-00001.parquet"
  table.to_parquet(path, batch_size=per_group)


def both(folder, **fields):
  return [
    webdataset.Source(f"{folder}/tars", **fields),
    huggingface.Source(f"{folder}/tables", **fields),
  ]
