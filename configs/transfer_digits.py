r"""scikit-learn's digits: few labels, linear probe and kNN, no download.

Command: python -m kd_jax.main --config configs/transfer_digits.py \
  --config.init_from=runs/quickstart/kdep
Start: a run of the quickstart (above; runs/quickstart/supervised likewise), any
  network of the same fields, or nothing: from scratch.
Variants: `:all` (all labels), `:probe` (only the classifier is trained),
  `:smoke` and so on (seconds).
Data: real digits of 8 pixels, enlarged to 24, with the package; of its 1437
  training and 360 test images those of 5 to 9, which the quickstart's teacher
  has not learned.

Protocol: 5 labelled images of each class, drawn anew for each of 5 seeds; the
  rate is one of three, chosen on 30 % of the training images, which no run then
  draws from. kNN and a linear classifier judge the features as they came, by
  the same images.

Expected: the table of docs/transfer.md, in less than a minute. It shows that
  transfer works, not what pre-training is worth: see the quickstart.
"""

from ml_collections import ConfigDict

from configs.common_scenes import DOWNSTREAM, QUICK_STUDENT, views
from configs.common_transfer import split, transfer


def get_config(variant: str = "") -> ConfigDict:
  """100 steps of SGD on 25 images, or on all, or of the classifier alone."""
  tiny, kind = split(variant, ("", "all", "probe"))
  config = transfer("classify")
  config.steps, config.batch_size = 100, 25
  config.log_every, config.eval.batch_size = 20, 180
  config.student.overrides = ConfigDict(QUICK_STUDENT)
  for name, part in (("data", "train"), ("test", "test")):
    digits = {"name": "digits", "split": part, "classes": DOWNSTREAM}
    config[name] = ConfigDict(digits)
  config.preprocess = views()
  config.optim.update({"lr": 0.03, "weight_decay": 5e-4, "schedule": "cosine"})
  config.transfer.update({"rates": (0.01, 0.03, 0.1), "shots": 5})
  config.transfer.update({"seeds": (0, 1, 2, 3, 4), "holdout": 0.3})
  config.transfer.evals = ("knn", "probe")
  if kind == "all":
    config.transfer.shots = 0
  if kind == "probe":
    config.transfer.update({"trains": "head", "rates": (0.1, 1.0, 10.0)})
    config.optim.weight_decay = 0.0
  if tiny:
    config.update({"steps": 4, "log_every": 1})
    config.transfer.update(
      {"seeds": (0, 1), "rates": config.transfer.rates[:2]}
    )
  config.lock()
  return config
