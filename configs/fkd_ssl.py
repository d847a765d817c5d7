r"""FKD without labels, as far as it is known (Shen & Xing, ECCV 2022).

Embeddings of 128 numbers, scaled to unit length; cross-entropy of softmax(. /
.2), as in S2-BNN (Shen et al., CVPR 2021), whose recipe this is: Adam, rate
3e-4, batch 256, 200 epochs, no decay, MoCo-v2's crops and colours but for hue,
grey and blur. The schedule is ours, and so is the student.

Command: python -m kd_jax.main --config configs/fkd_ssl.py \
  --config.teacher.weights=FILE
The teacher is a network whose last layer yields the embedding. From a bank: a
write_bank config with codec raw, tap='logits'.

Expected: no published figure for this pair; FKD's storage and settings are not
public. `:smoke` runs in seconds.
"""

from ml_collections import ConfigDict

from configs.common import base, choose, imagenet, preprocess, smoke


def get_config(variant: str = "") -> ConfigDict:
  """Teacher online."""
  choose(variant, ("", "smoke"))
  config = base()
  config.steps = 200 * (1_281_167 // 256)
  embedding = {"num_classes": 128}
  config.student.overrides = ConfigDict(embedding)
  config.teacher.overrides = ConfigDict(embedding)
  config.method = ConfigDict({"name": "fkd_ssl", "temperature": 0.2})
  config.method.teacher_temperature = 0.2
  config.losses = ConfigDict({"soft": 1.0})
  config.optim.update({"name": "adamw", "lr": 3e-4, "schedule": "cosine"})
  config.data = imagenet("train")
  jitter = {"color_jitter": (0.4, 0.4, 0.4)}
  config.preprocess = preprocess(224, scale=(0.2, 1.0), **jitter)
  if variant == "smoke":
    smoke(config)
    config.teacher.overrides.num_classes = 128
    tiny = {"channels": (8, 8, 8, 8), "stem_width": 8}
    config.student.overrides.update(tiny)
  config.lock()
  return config
