"""What the configs of ScaleKD share: teachers, recipes and small variants.

Source of every number: github.com/deep-optimization/ScaleKD, configs and code
(called the code below), which differ from the paper (arXiv:2411.06786) where a
config says so. Common to all pairs, and other than in the paper: labels and
teacher's logits have the weight .5 each (paper: 1), features absolute weights
(paper: one hyper-parameter beta = .6), projectors without a residual around
the attention. Mixup and CutMix never ran in the code; `--config.mix.cutmix=1.0`
and `mix.mixup` switch them on. Here the teacher sees its own normalisation and
drops no paths.
"""

from ml_collections import ConfigDict

from configs.common import base, choose, imagenet, preprocess, smoke

IMAGES = 1_281_167
IMAGE_SIZE = 224

# Weights of the four feature terms: original view, alternative view.
SWIN_WEIGHTS = (0.08, 0.06)
TEACHERS = {
  "swin_l": {
    "name": "swin_large_patch4_window7_224",
    "weights": "timm/swin_large_patch4_window7_224.ms_in22k_ft_in1k",
    "target": "final",
    "resume": "stage4",
    "terms": SWIN_WEIGHTS,
  },
  "swin_b": {
    "name": "swin_base_patch4_window7_224",
    "weights": "timm/swin_base_patch4_window7_224.ms_in22k_ft_in1k",
    "target": "final",
    "resume": "stage4",
    "terms": SWIN_WEIGHTS,
  },
  "swin_s": {
    "name": "swin_small_patch4_window7_224",
    "weights": "timm/swin_small_patch4_window7_224.ms_in1k",
    "target": "final",
    "resume": "stage4",
    "terms": SWIN_WEIGHTS,
  },
  # The weights are for 196 pixels; positions are resized.
  "beit_l": {
    "name": "eva_large_patch14_196",
    "weights": "timm/eva_large_patch14_196.in22k_ft_in22k_in1k",
    "target": "stage4",
    "resume": "block22",
    "terms": (0.016, 0.008),
  },
  # Not of the paper: Swin's weights for 196 positions instead of 49.
  "dinov3_b": {
    "name": "vit_base_patch16_dinov3",
    "weights": "timm/vit_base_patch16_dinov3.lvd1689m",
    "target": "stage4",
    "resume": "block10",
    "terms": (0.02, 0.015),
  },
}

TINY_TOKENS = {
  "img_size": 64,
  "patch_size": 16,
  "embed_dim": 16,
  "depth": 4,
  "num_heads": 2,
}
TINY_MIXER = {
  "img_size": 64,
  "patch_size": 16,
  "embed_dim": 16,
  "num_blocks": 4,
}
TINY_SWIN = {
  "img_size": 64,
  "embed_dim": 4,
  "depths": (1, 1, 1, 2),
  "num_heads": (1, 1, 2, 2),
}
# By the target tap: name, overrides and where the tail begins.
TINY_TEACHERS = {
  "final": ("swin_tiny_patch4_window7_224", TINY_SWIN, "stage4"),
  "stage4": ("eva_large_patch14_196", TINY_TOKENS, "block02"),
}


def split(variant: str, allowed: tuple[str, ...]) -> tuple[bool, str]:
  """'smoke_beit' is (True, 'beit'), 'beit' is (False, 'beit')."""
  small = tuple("smoke" + f"_{name}" * bool(name) for name in allowed)
  choose(variant, (*allowed, *small))
  return variant in small, variant.removeprefix("smoke").removeprefix("_")


def advanced(batch: int, magnitude: float, optim: dict, **views) -> dict:
  """300 epochs of bicubic crops, RandAugment and random erasing.

  Args:
    batch: of the code's GPUs together, by which it never scales the rate.
    magnitude: of RandAugment, of 10.
    optim: fields of the optimizer.
    **views: other fields of the training views.
  """
  fields = {"rand_ops": 2, "rand_magnitude": magnitude, "erase_prob": 0.25}
  fields |= {"train_interpolation": "bicubic", "interpolation": "bicubic"}
  optim = {"schedule": "cosine", **optim}
  views = {**fields, **views}
  return {"epochs": 300, "batch": batch, "optim": optim, "views": views}


def lamb(**changes) -> dict:
  """LAMB, clipped to norm 1, with 5 epochs of warm-up from a quarter."""
  fields = {"name": "lamb", "lr": 5e-3, "weight_decay": 0.02}
  fields |= {"momentum": 0.9, "warmup_epochs": 5, "warmup_factor": 0.25}
  return {**fields, "clip_norm": 1.0, **changes}


def adamw(**changes) -> dict:
  """AdamW as for most transformers, without decay of vectors.

  Class tokens and Swin's tables of positions decay in ScaleKD's code, which
  timm would leave out.
  """
  fields = {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05}
  fields |= {"momentum": 0.9, "decay_all": False, "no_decay": ()}
  fields |= {"final_lr": 1e-5}
  fields |= {"warmup_epochs": 20, "warmup_factor": 1e-3, "clip_norm": 5.0}
  return {**fields, **changes}


def mixer_adamw(**changes) -> dict:
  """AdamW of the Mixers; everything decays but positions."""
  fields = {"lr": 7e-4, "weight_decay": 0.067, "decay_all": True}
  fields |= {"final_lr": 0.0, "warmup_factor": 1e-6, "clip_norm": 1.0}
  return adamw(**fields, no_decay=("pos_embed",), **changes)


def traditional(**optim) -> dict:
  """100 epochs of SGD, rate .1 divided by 10 at 30, 60, 90; crop and flip."""
  fields = {"lr": 0.1, "weight_decay": 1e-4, "schedule": "step"}
  views = {"train_interpolation": "bilinear", "interpolation": "bilinear"}
  return {
    "epochs": 100,
    "batch": 256,
    "optim": {**fields, **optim},
    "views": views,
  }


def scalekd(teacher: str, student: str, recipe: dict, **pair) -> ConfigDict:
  """A pair of teacher and student on ImageNet.

  Args:
    teacher: one of `TEACHERS`.
    student: name of the architecture.
    recipe: of `advanced` or `traditional`.
    **pair: heads, sharpness, taps (of the student), task ('ce', 'bce' or 'ls',
      with smoothing), and optionally norm, overrides (of the student), ema,
      crop_pct, size (of the images).
  """
  config = base()
  known = TEACHERS[teacher]
  size = pair.get("size", IMAGE_SIZE)
  epoch = IMAGES // recipe["batch"]
  config.batch_size = recipe["batch"]
  config.steps = recipe["epochs"] * epoch
  config.ema_decay = pair.get("ema", 0.0)
  config.student.update({"name": student, "overrides": {"num_classes": 1000}})
  config.student.overrides.update(pair.get("overrides", {}))
  config.teacher.update({"name": known["name"], "weights": known["weights"]})
  config.teacher.overrides = ConfigDict({"img_size": size})
  config.method = ConfigDict(
    {
      "name": "scalekd",
      "student": pair["taps"],
      "target": known["target"],
      "resume": known["resume"],
      "heads": pair["heads"],
      "sharpness": pair["sharpness"],
      "norm": pair.get("norm", "batch"),
      "kd_temperature": 1.0,
      "remat": "none",  # 'dots' or 'full': less memory, more computing
    }
  )
  config.losses = terms(known["terms"], pair["task"])
  config.mix.smoothing = 0.1 if pair["task"] == "ls" else 0.0
  config.optim.update(rates(recipe["optim"], epoch))
  config.data = imagenet("train")
  config.preprocess = preprocess(
    size, crop_pct=pair.get("crop_pct", 0.875), **recipe["views"]
  )
  config.eval.update({"every": 10 * epoch, "evals": ("top1",)})
  config.eval.update({"tap": "logits", "test": imagenet("validation")})
  config.eval.train = imagenet("train", 1)  # top1 does not read it
  config.checkpoint.every = epoch
  return config


def terms(weights: tuple[float, float], task: str) -> ConfigDict:
  """Weights of the loss terms; `task` is 'ce', 'ls' or 'bce'."""
  original, alternative = weights
  return ConfigDict(
    {
      "proxy": original,
      "final": original,
      "proxy_alt": alternative,
      "final_alt": alternative,
      "kd": 0.5,
      "ce": 0.0 if task == "bce" else 0.5,
      "bce": 0.5 if task == "bce" else 0.0,
    }
  )


def rates(fields: dict, epoch: int) -> dict:
  """Fields of the optimizer, with lengths in steps."""
  fields = dict(fields)
  warmup = fields.pop("warmup_epochs", 0)
  factor = fields.pop("warmup_factor", 0.0)
  if warmup:
    fields |= {"warmup": warmup * epoch, "warmup_lr": factor * fields["lr"]}
  return {"decay_every": 30 * epoch, "final_lr": 0.0, **fields}


def unlabelled(config: ConfigDict) -> None:
  """No labels and no logits: any images will do."""
  config.losses.update({"kd": 0.0, "ce": 0.0, "bce": 0.0})
  config.mix.smoothing = 0.0
  config.student.overrides.num_classes = 0
  config.eval.evals = ()


def tiny(config: ConfigDict, overrides: dict, taps: tuple[str, ...]) -> None:
  """The same pair in seconds: small networks, synthetic images.

  Args:
    config: of the pair.
    overrides: what makes the student small.
    taps: its own, where its blocks have other numbers then.
  """
  smoke(config)
  name, fields, resume = TINY_TEACHERS[config.method.target]
  config.preprocess.image_size = 64
  config.teacher.name = name
  config.teacher.overrides = ConfigDict({**fields, "num_classes": 16})
  config.student.overrides.update({**overrides, "num_classes": 16})
  config.method.update({"heads": (2, 2), "resume": resume, "student": taps})
  images = {"name": "synthetic", "size": 72, "num_classes": 16, "length": 48}
  config.data = ConfigDict(images)
  config.eval.test = ConfigDict({**images, "length": 16, "seed": 1})
  config.eval.train = ConfigDict({**images, "length": 16})
  if config.optim.get("warmup"):
    config.optim.warmup = 1
  config.eval.evals = ("top1",)
