r"""Others' methods, ResNet-50 -> ResNet-18 on any images, without labels.

Command: python -m kd_jax.main --config configs/peers.py:crd \
  --config.data.name=folder --config.data.dir=DIR
Variants: one per method (kd_jax/methods/classic and recent), the default is
  lightly_both; `:smoke_crd` and so on run in seconds. What each takes from its
  paper and what is ours is said in its file and in docs/methods.md.
Data: imagenet2012 as prepared by TensorFlow Datasets (docs/data.md), or a
  folder. Methods that compare logits (dkd, dist) need a teacher and a student
  with the same classes.

Expected: nothing is published for pre-training without labels by most of them;
docs/methods.md races all on small images. unic, theia and radio were made for
several teachers: configs/teachers_three.py has them so. The weights are those
of their papers or tables where these have one and labels beside it (attention
transfer 1000, SP 3000, PKT 30000, NST 50, RKD 25 and 50, DIST 1 and 1, FitNets
100 with SGD at .05 on CIFAR-100). The optimizer here is AdamW, whose steps do
not depend on the scale of a loss; so the weights only share out terms, and are
1 where there is one.
"""

from ml_collections import ConfigDict

from configs.common import choose, kdep_imagenet, smoke

# Fields of every method, and the weights of its terms.
METHODS = {
  "lightly_both": ({}, {"global": 1.0, "local": 1.0}),
  "lightly_global": ({}, {"global": 1.0}),
  "lightly_dense": ({}, {"dense": 1.0}),
  "kdep_dense": (
    {"student": "feature_map", "teacher": "feature_map"},
    {"summary": 3.0, "patches": 3.0},
  ),
  "dinov3": (
    {"student": "stage4", "teacher": "stage4"},
    {"image": 1.0, "patch": 1.0, "koleo": 0.1},
  ),
  "proteus": (
    {"student": "stage4", "teacher": "stage4"},
    {"token": 1.0, "feature": 1.0, "patch": 1.0},
  ),
  "tinymim": ({"heads": 8}, {"relations": 1.0}),
  "unic": ({}, {"summary": 0.5, "patches": 0.5}),
  "theia": ({}, {"patches": 1.0}),
  "radio": ({}, {"summary": 1.0, "patches": 1.0}),
  "attention_transfer": ({}, {"attention": 1.0}),
  "crd": ({}, {"student": 1.0, "teacher": 1.0}),
  "dist": ({}, {"images": 1.0, "classes": 1.0}),
  "dkd": ({}, {"decoupled": 1.0}),
  "fitnets": ({}, {"hint": 1.0}),
  "nst": ({}, {"selectivity": 1.0}),
  "pkt": ({}, {"neighbours": 1.0}),
  "reviewkd": ({}, {"review": 1.0}),
  "rkd": ({}, {"distance": 25.0, "angle": 50.0}),
  "simkd": ({}, {"feature": 1.0}),
  "sp": ({}, {"similarity": 1.0}),
}
LOGITS = ("dist", "dkd")


def get_config(variant: str = "") -> ConfigDict:
  """KDEP's images and budget, AdamW for every method."""
  choose(variant, ("", "smoke", *METHODS, *(f"smoke_{m}" for m in METHODS)))
  small = variant.startswith("smoke")
  name = variant.removeprefix("smoke").removeprefix("_") or "lightly_both"
  fields, losses = METHODS[name]
  config = kdep_imagenet("", "resnet18", lr=5e-4)
  with config.unlocked():
    config.method = ConfigDict({"name": name, **fields})
    config.losses = ConfigDict(losses)
    config.optim.update({"name": "adamw", "weight_decay": 0.04})
    config.optim.update({"decay_all": False, "schedule": "cosine"})
    config.optim.warmup = config.steps // 20
    config.optim.clip_norm = 1.0
    if name.startswith("lightly"):
      config.mix.mixup = 1.0  # its share is uniform
    if name in LOGITS:
      config.student.overrides.num_classes = 1000
    if small:
      tiny(config, name)
  config.lock()
  return config


def tiny(config: ConfigDict, name: str) -> None:
  """A few steps on synthetic images."""
  smoke(config)
  config.preprocess.image_size = 64  # so that the last maps are no points
  config.optim.warmup = 1
  network = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "stem_width": 8}
  config.student.overrides.update(network)
  if name in LOGITS:
    config.student.overrides.num_classes = 4
    config.teacher.overrides.num_classes = 4
  if name.startswith("lightly") and name != "lightly_dense":
    config.method.queue = 16
  if name == "crd":
    config.method.update({"negatives": 16, "width": 8})
  if name == "reviewkd":
    config.method.width = 8
  if name in ("unic", "theia", "radio"):
    config.method.hidden = 16
  if name == "unic":
    config.method.last_hidden = 32
