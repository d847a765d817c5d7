"""A run of seconds that draws all pictures: a small ViT teaches a ResNet.

The images are given by --config.data.dir.
"""

from ml_collections import ConfigDict

from configs.common import base, preprocess

VIT = {
  "embed_dim": 32,
  "depth": 4,
  "num_heads": 2,
  "img_size": 64,
  "patch_size": 8,
  "num_classes": 0,
}
RESNET = {
  "layers": (1, 1, 1, 1),
  "channels": (8, 8, 16, 24),
  "stem_width": 4,
  "num_classes": 0,
  "input_size": (3, 64, 64),
}
VARIANTS = ("",)


def get_config(variant: str = "") -> ConfigDict:
  """KDEP from a teacher that knows nothing."""
  del variant
  config = base()
  config.steps = 4
  config.batch_size = 8
  config.data = ConfigDict({"name": "folder", "dir": ""})
  config.preprocess = preprocess(64)
  config.student = ConfigDict({"name": "resnet18", "overrides": RESNET})
  config.teacher.update(
    {"source": "random", "name": "vit_tiny_patch16_224", "overrides": VIT}
  )
  config.log_every = 1
  config.checkpoint.every = 0
  config.lock()
  return config
