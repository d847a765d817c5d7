# %% [markdown]
# # The teacher runs once: a bank of targets
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/kd_jax/blob/main/notebooks/bank.ipynb)
#
# Most of distillation's cost is the teacher, for every epoch of every student.
# A bank keeps what it said about every crop. Two students learn from one bank
# here, and the teacher is not there any more. `quickstart.ipynb` comes before.

# %%
import importlib.util
import subprocess
import sys

REPOSITORY = "git+https://github.com/OWNER/kd_jax"  # put in the owner

if importlib.util.find_spec("kd_jax") is None:
  subprocess.run([sys.executable, "-m", "pip", "install", "-q", REPOSITORY])

# %% [markdown]
# ## The pieces
# `configs/quickstart.py:bank` has a config for each: the teacher, a student
# beside it, a writer, a student that reads. The images are scenes: digits on
# photographs that scikit-learn ships. We only shorten them.

# %%
from kd_jax import config as configs
from kd_jax.tasks import pretrain, write_bank

STEPS, IMAGES, BATCH = 200, 2000, 64
PASSES = -(-STEPS * BATCH // IMAGES)  # epochs that so many steps see
RUNS = configs.load("configs/quickstart.py:bank").runs


def shortened(name, **fields):
  """The config of that name, with few steps and images."""
  config = RUNS[name].copy_and_resolve_references()
  with config.unlocked():
    config.steps, config.optim.warmup = STEPS, STEPS // 20
    config.data.length = IMAGES
    config.eval.update({"pictures": 0, "limit": 500})
    config.fit.examples = min(config.fit.examples, IMAGES)
    config.teacher.update(fields)
  return config


teacher = pretrain.run(shortened("teacher"), "runs/teacher")
print(f"accuracy of the teacher: {teacher.metrics['eval/accuracy']:.3f}")

# %% [markdown]
# ## Write the bank
# `int8` stores the leading directions of the teacher's feature, one byte each.
# A crop's box and flip are stored too, so that a student sees the same crops.

# %%
config = shortened("bank8", weights="runs/teacher/student")
with config.unlocked():
  config.bank.passes = PASSES

write_bank.run(config, "runs/bank")

# %%
from pathlib import Path

SIZE = sum(
  x.stat().st_size for x in Path("runs/bank").rglob("*") if x.is_file()
)
CROPS = PASSES * IMAGES
print(f"crops stored      {CROPS}")
print(f"bytes per crop    {SIZE / CROPS:.1f}")
print(f"float32 features  {teacher.student.channels[-1] * 4}")

# %% [markdown]
# ## Two students from one bank
# Neither loads the teacher: its folder is renamed while they train. The second
# student is half as wide. The last run learns beside the teacher, as usual,
# for comparison.

# %%
import time

FOUND = {}


def train(title, config):
  """Trains a student and keeps how long it took and how well it fits."""
  start = time.perf_counter()
  result = pretrain.run(config, f"runs/{title.replace(' ', '_')}")
  FOUND[title] = {
    "seconds": time.perf_counter() - start,
    "images/s": result.metrics["images_per_s"],
    "loss": result.metrics["loss/feature"],
  }


stored = shortened("stored8", weights="runs/bank/bank")
narrow = stored.copy_and_resolve_references()
with narrow.unlocked():
  narrow.student.overrides.channels = (8, 16, 16, 32)

Path("runs/teacher").rename("runs/away")
train("from the bank", stored)
train("narrow one from the bank", narrow)
Path("runs/away").rename("runs/teacher")
train("beside the teacher", shortened("kdep", weights="runs/teacher/student"))

# %% [markdown]
# The loss is that of the last steps, against the teacher's aligned feature; a
# narrow student is asked for fewer directions. The seconds include compilation. This teacher is hardly larger than
# its student, so there is little to save; beside a ResNet-50 a step takes 1.34
# times as long as from a bank (`docs/bank.md`).

# %%
for title, row in FOUND.items():
  figures = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
  print(f"{title:<26} {figures}")

# %%
import json

import matplotlib.pyplot as plt

plt.figure(figsize=(5, 3), dpi=80)
for title in FOUND:
  lines = Path(f"runs/{title.replace(' ', '_')}/metrics.jsonl").read_text()
  rows = [json.loads(line) for line in lines.splitlines()]
  rows = [row for row in rows if "loss/feature" in row]
  plt.plot(
    [row["step"] for row in rows],
    [row["loss/feature"] for row in rows],
    label=title,
    linestyle="--" if title == "beside the teacher" else "-",
  )
plt.xlabel("step")
plt.ylabel("loss")
plt.legend(fontsize=8)
plt.tight_layout()
plt.show()

# %% [markdown]
# With your own images: `configs/bank_kdep.py` writes and
# `configs/kdep_r18_bank.py` reads. `docs/bank.md` has the codecs, and what a
# bank refuses.
