r"""A bank of the teacher's dense maps, and KDEP on maps from it.

Stores of every crop the leading directions of the last map before its ReLU,
position by position, and of the pooled feature, one byte each, with a basis of
each fitted on the images first. The student reads the maps of exactly the crops
and flips that it sees: nothing is cut out of a stored map or turned afterwards.

Command: python -m kd_jax.main --config configs/bank_maps.py \
  --workdir runs/bank_maps --config.bank.passes=90
Then: python -m kd_jax.main --config configs/bank_maps.py:student
Variants: `:student`, KDEP's loss on pooled features and on maps (the methods of
  configs/peers.py learn from it as well, if it stores the taps that they read:
  --config.bank.codec.directions.stage4=256); `:smoke` and `:student_smoke` in
  seconds.
What it takes and what is lost, without writing: --config.dry_run=True

Expected: 13,070 bytes per crop, of ResNet-50 at 224 pixels; 151 GB for 90
passes over 10 % of ImageNet (128,000 images). It has not been run at this size.
"""

from ml_collections import ConfigDict

from configs.common import bank, choose, kdep_imagenet

DIRECTIONS = {"feature": 512, "feature_map": 256}


def get_config(variant: str = "") -> ConfigDict:
  """The writer, or the student that learns from what it wrote."""
  choose(variant, ("", "student", "smoke", "student_smoke"))
  small = "smoke" if variant.endswith("smoke") else ""
  config = kdep_imagenet(small, "resnet18", lr=5e-4)
  with config.unlocked():
    # A head each, since the bank has 256 directions and the map 512 channels.
    config.method = ConfigDict(
      {
        "name": "kdep_dense",
        "student": "feature_map",
        "teacher": "feature_map",
        "head": "linear",
        "width": 256,
      }
    )
    config.losses = ConfigDict({"summary": 3.0, "patches": 3.0})
    config.optim.update({"name": "adamw", "weight_decay": 0.04})
    config.optim.update({"decay_all": False, "schedule": "cosine"})
    config.optim.warmup = config.steps // 20
    if small:
      config.preprocess.image_size = 64  # so that the last map is no point
      config.method.width = 8
    if variant.startswith("student"):
      config.teacher.update({"source": "bank", "name": "", "overrides": {}})
      config.teacher.weights = "runs/bank_maps/bank"
    else:
      bank(config, codec={"name": "maps", "directions": dict(DIRECTIONS)})
    if small and variant == "smoke":
      config.bank.shard = 32
      config.bank.codec.directions.update({"feature": 8, "feature_map": 8})
  config.lock()
  return config
