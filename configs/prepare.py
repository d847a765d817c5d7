r"""A folder of images as a TFDS data set of few large files.

Worth it where images lie on a network file system. TensorFlow is not needed.

Command: python -m kd_jax.main --config configs/prepare.py \
  --config.train.dir=/path/to/images --config.dataset=my_images
A second split: --config.test.name=folder --config.test.dir=/path/to/others

Expected: /path/of/data_dir/my_images/1.0.0, about as large as the images.
"""

from ml_collections import ConfigDict

from configs.common import choose


def get_config(variant: str = "") -> ConfigDict:
  """The variant 'smoke' writes a few synthetic images."""
  choose(variant, ("", "smoke"))
  config = ConfigDict(
    {
      "task": "prepare",
      "dataset": "my_images",
      "data_dir": "",  # '': $TFDS_DATA_DIR, or ~/tensorflow_datasets
      "records_per_shard": 8192,  # about 1 GB of ImageNet
      # Any data sources; '' is none.
      "train": {"name": "folder"},
      "test": {"name": ""},
    }
  )
  if variant == "smoke":
    images = {"name": "synthetic", "size": 8, "num_classes": 2}
    config.train = ConfigDict({**images, "length": 6})
    config.records_per_shard = 4
  return config.lock()
