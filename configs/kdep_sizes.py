r"""KDEP on pooled features and patches at two resolutions, DINOv3 -> ViT-S/16.

Command: python -m kd_jax.main --config configs/kdep_sizes.py \
  --config.data.dir=IMAGES
Variants: `:smoke`.

RADIO's lesson (arXiv:2312.06709, 2412.07679): most of the training at a low
resolution, the rest at a high one, and back in between, so that the student's
features do not shift with the size of an image. The teacher, whose positions
are rotary, sees the same size; one that has a size of its own gets it in
`config.teachers` (docs/teachers.md). The report shows both networks' patches at
all sizes.

Expected: nothing is published for this combination and it has not been run at
this size. Rate and batch are those of DeiT (arXiv:2012.12877); shares and sizes
are ours.
"""

from ml_collections import ConfigDict

from configs.common import base, choose, preprocess

SIZES = ((0.7, 224), (0.1, 448), (0.1, 224), (0.1, 448))
STEPS = 100 * 1_281_167 // 1024


def get_config(variant: str = "") -> ConfigDict:
  """Low first, then in turns."""
  choose(variant, ("", "smoke"))
  config = base()
  config.steps, config.batch_size, config.dtype = STEPS, 1024, "bfloat16"
  config.student.update({"name": "vit_small_patch16_224"})
  config.student.overrides = ConfigDict({"num_classes": 0})
  config.teacher.update({"name": "vit_base_patch16_dinov3"})
  config.teacher.weights = "timm/vit_base_patch16_dinov3.lvd1689m"
  config.data = ConfigDict({"name": "folder", "dir": "images", "split": "all"})
  config.preprocess = preprocess(
    224, train_interpolation="bicubic", scale=(0.4, 1.0)
  )
  last = {"student": "final", "teacher": "final"}
  config.method = ConfigDict({"name": "kdep_dense", **last, "sizes": SIZES})
  config.losses = ConfigDict({"summary": 1.0, "patches": 1.0})
  config.fit.examples = 20_000
  config.optim.update({"name": "adamw", "lr": 1e-3, "weight_decay": 0.05})
  config.optim.update({"decay_all": False, "schedule": "cosine"})
  config.optim.update({"warmup": 5 * STEPS // 100, "clip_norm": 1.0})
  config.checkpoint.every = 5000
  if variant == "smoke":
    smoke(config)
  config.lock()
  return config


def smoke(config: ConfigDict) -> None:
  """Networks of a few channels on tiny images, in seconds."""
  config.steps, config.batch_size, config.dtype = 4, 8, "float32"
  config.log_every, config.checkpoint.every, config.optim.warmup = 1, 1, 1
  config.fit.examples = 0
  config.data = ConfigDict({"name": "synthetic", "size": 40, "length": 96})
  config.preprocess.image_size = 32
  config.method.sizes = ((0.5, 32), (0.5, 48))
  config.eval.batch_size = 16
  tokens = {"img_size": 32, "embed_dim": 16, "depth": 4, "num_heads": 2}
  tokens["patch_size"] = 8
  config.student.overrides.update(tokens)
  config.teacher.update({"source": "random", "weights": ""})
  config.teacher.overrides = ConfigDict({**tokens, "embed_dim": 24})
