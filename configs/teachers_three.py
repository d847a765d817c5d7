r"""DINOv3, SigLIP and a supervised ConvNeXt teach ViT-S/16, on any folder.

Command: python -m kd_jax.main --config configs/teachers_three.py \
  --config.data.dir=IMAGES
Variants: `:joint`; `:bank_dinov3`, `:bank_siglip`, `:bank_convnext` and then
`:banks`; `:radio`, `:theia`, `:unic`; `:smoke`, `:joint_smoke`, `:radio_smoke`
  and so on.

What each of the three is good at (dense features, language, ImageNet's
classes), in one student, without labels. Every teacher sees the student's crop
at the size that it was trained with; a linear head per teacher, thrown away
afterwards, learns its pooled feature, balanced by PHI-S (arXiv:2410.01680).
`:joint` learns one target instead, the joint SVD of all three, without a head.
`:radio`, `:theia` and `:unic` learn summaries and patches as these do
(kd_jax/methods/recent); UNIC drops teachers image by image.
`:bank_NAME` writes what one teacher says of every crop, one after the other on
a machine that holds only one of them; `:banks` learns from these three.

Expected: nothing is published for this combination and it has not been run at
this size. 300 epochs over 1.28 million images at the batch and rate of DeiT
(arXiv:2012.12877). docs/teachers.md has the command that tells memory and cost.
"""

from ml_collections import ConfigDict

from configs.common import bank, base, choose, preprocess, teacher

TEACHERS = ("convnext", "dinov3", "siglip")
VARIANTS = ("", "joint", *(f"bank_{name}" for name in TEACHERS), "banks")
STEPS = 300 * 1_281_167 // 1024
BLOCKS = tuple(f"block{i:02}" for i in range(11))  # below the student's output
# Others' methods: the weights of their terms, for every teacher.
OTHERS = {
  "radio": {"summary": 1.0, "patches": 1.0},
  "theia": {"patches": 1.0},
  "unic": {"summary": 0.5, "patches": 0.5},
}


def get_config(variant: str = "") -> ConfigDict:
  """One head per teacher, or another variant."""
  small = ("smoke", *(f"{name}_smoke" for name in ("joint", *OTHERS)))
  choose(variant, (*VARIANTS, *OTHERS, *small))
  config = base()
  config.steps, config.batch_size = STEPS, 1024
  config.dtype = "bfloat16"
  config.student.update({"name": "vit_small_patch16_224"})
  config.student.overrides = ConfigDict({"num_classes": 0})
  config.data = ConfigDict({"name": "folder", "dir": "images", "split": "all"})
  config.preprocess = preprocess(
    224, train_interpolation="bicubic", scale=(0.4, 1.0)
  )
  config.teachers = teachers()
  # Squared distances as they are: power-temperature scaling is KDEP's balance.
  plain = {"name": "kdep", "temperature": 1.0, "power": 1.0}
  align = "joint_svd" if variant.startswith("joint") else "phi_s"
  config.method = ConfigDict({**plain, "align": {"name": align}})
  terms = [f"{name}/feature" for name in TEACHERS]
  joint = align == "joint_svd"
  config.losses = ConfigDict(
    dict.fromkeys(["feature"] if joint else terms, 1.0)
  )
  config.fit.examples = 100_000
  config.optim.update({"name": "adamw", "lr": 1e-3, "weight_decay": 0.05})
  config.optim.update({"decay_all": False, "schedule": "cosine"})
  config.optim.update({"warmup": 5 * STEPS // 300, "clip_norm": 1.0})
  config.checkpoint.every = 5000
  if variant.startswith("bank"):
    of_banks(config, variant)
  if variant.partition("_")[0] in OTHERS:
    of_others(config, variant.partition("_")[0])
  if variant.endswith("smoke"):
    smoke(config)
  config.lock()
  return config


def teachers() -> ConfigDict:
  """By name, each at its own size."""
  view = ConfigDict({"image_size": 256})
  dinov3 = "vit_base_patch16_dinov3"
  siglip = "vit_base_patch16_siglip_256"
  convnext = "convnext_base"
  found = {
    "convnext": teacher(convnext, f"timm/{convnext}.fb_in22k_ft_in1k"),
    "dinov3": teacher(dinov3, f"timm/{dinov3}.lvd1689m", preprocess=view),
    "siglip": teacher(siglip, f"timm/{siglip}.webli", preprocess=view),
  }
  return ConfigDict(found)


def of_others(config: ConfigDict, name: str) -> None:
  """A summary and patches of every teacher, by one of `OTHERS`."""
  fields = {"name": name, "student": "final", "teacher": "final"}
  losses = {f"{t}/{k}": w for t in TEACHERS for k, w in OTHERS[name].items()}
  config.method, config.losses = ConfigDict(fields), ConfigDict(losses)
  if name == "unic":
    config.method.ladder = BLOCKS
    config.balance = ConfigDict({"name": "dropping"})


def of_banks(config: ConfigDict, variant: str) -> None:
  """The writer of one bank, or the student of all of them."""
  name = variant.removeprefix("bank_")
  if name in TEACHERS:
    found = config.teachers[name].to_dict()
    config.preprocess.update(found.pop("preprocess"))
    del found["method"], found["weight"]
    config.teacher.update(found)
    config.teachers = ConfigDict()
    config.losses = ConfigDict({"feature": 1.0})
    bank(config, codec={"name": "raw", "dtype": "float16"})
    return
  for name in TEACHERS:
    config.teachers[name].source = "bank"
    config.teachers[name].weights = f"runs/teachers_three_{name}/bank"


def smoke(config: ConfigDict) -> None:
  """Networks of a few channels on tiny images, in seconds."""
  config.steps, config.batch_size, config.dtype = 4, 8, "float32"
  config.log_every, config.checkpoint.every, config.optim.warmup = 1, 2, 1
  config.fit.examples = 0
  config.data = ConfigDict({"name": "synthetic", "size": 40, "length": 96})
  config.preprocess.image_size = 32
  config.eval.batch_size = 16
  tokens = {"img_size": 32, "embed_dim": 16, "depth": 4, "num_heads": 2}
  config.student.overrides.update({**tokens, "patch_size": 8})
  if "ladder" in config.method:
    config.method.ladder = BLOCKS[:3]
  tiny = {
    "convnext": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 24)},
    "dinov3": {**tokens, "img_size": 48},
    "siglip": {**tokens, "img_size": 48},
  }
  for name, overrides in tiny.items():
    entry = config.teachers[name]
    entry.update({"source": "random", "weights": ""})
    entry.overrides = ConfigDict(overrides)
    if entry.preprocess:
      entry.preprocess.image_size = 48
