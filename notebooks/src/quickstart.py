# %% [markdown]
# # kd_jax in ten minutes
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/kd_jax/blob/main/notebooks/quickstart.ipynb)
#
# You have images and no labels. A strong network, the teacher, looks at them;
# a small one, the student, learns to see what the teacher sees. This notebook
# trains a student, looks at its features, tries it with few labels and saves
# it. It runs on a CPU in two minutes, and on a GPU or TPU as well.

# %% [markdown]
# ## Install
# This does nothing where kd_jax is installed. Put the owner of your copy in
# the place of OWNER.

# %%
import importlib.util
import subprocess
import sys

REPOSITORY = "git+https://github.com/OWNER/kd_jax"

if importlib.util.find_spec("kd_jax") is None:
  subprocess.run([sys.executable, "-m", "pip", "install", "-q", REPOSITORY])

# %% [markdown]
# ## The machine
# JAX takes the accelerator of the runtime if there is one.

# %%
import jax

DEVICE = jax.devices()[0]
ON_CPU = DEVICE.platform == "cpu"
print(f"{len(jax.devices())} x {DEVICE.platform} ({DEVICE.device_kind})")

# %% [markdown]
# ## The images
# Set `PATH` to a folder of your own images. If they lie in one folder per
# class, the classes are used below to judge the student; training never reads
# them. With `PATH = ""` the notebook makes its own images: scikit-learn's
# handwritten digits in random colours on parts of its photographs.
#
# `TEACHER` is a name such as `"dinov2-small"` (weights from the Hugging Face
# hub), or a folder. With `""` the notebook trains a small teacher for the
# digits itself.

# %%
PATH = ""
TEACHER = ""

if PATH and not TEACHER:
  TEACHER = "dinov2-small"  # a teacher of digits knows nothing about photos

# %%
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

SIZE = 48  # pixels


def draw(folder, rows, count, seed):
  """Writes digits on photographs to folder/CLASS/NUMBER.png."""
  rng, digits = np.random.default_rng(seed), load_digits()
  photos = load_sample_images().images
  for i in range(count):
    row = rows[i % len(rows)]
    ink = Image.fromarray((digits.images[row] * 15.9).astype(np.uint8))
    ink = np.asarray(ink.resize((SIZE, SIZE), Image.BICUBIC))[..., None] / 255
    top, left = rng.integers(0, 350), rng.integers(0, 590)
    photo = photos[i % 2][top : top + SIZE, left : left + SIZE]
    image = photo * (1 - ink) + rng.integers(0, 256, 3) * ink
    place = Path(folder, str(digits.target[row]))
    place.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.astype(np.uint8)).save(place / f"{i:04}.png")


IMAGES, JUDGED = PATH, PATH
if not PATH:
  IMAGES, JUDGED = "digits/train", "digits/new"
  draw(IMAGES, range(1200), 2000, seed=0)
  draw(JUDGED, range(1200, 1797), 700, seed=1)  # handwriting never seen

# %%
import matplotlib.pyplot as plt


def show(paths, columns, titles=()):
  """Shows images in rows."""
  rows = -(-len(paths) // columns)
  figure, axes = plt.subplots(
    rows, columns, figsize=(columns, rows * 1.15), dpi=50, squeeze=False
  )
  for i, axis in enumerate(axes.flat):
    axis.axis("off")
    if i < len(paths):
      axis.imshow(Image.open(paths[i]).convert("RGB").resize((48, 48)))
    if i < len(titles):
      axis.set_title(titles[i], fontsize=8)
  figure.tight_layout(pad=0.2)
  plt.show()


FILES = sorted(
  x
  for x in Path(IMAGES).rglob("*")
  if x.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")
)
show(FILES[:: max(len(FILES) // 16, 1)][:16], columns=8)

# %% [markdown]
# ## The teacher
# Usually a network that others trained on many images. Without a network
# connection we make one: a small ResNet that learns the digits with their
# labels, from the teacher's part of `configs/quickstart.py`. It is the only
# one that sees labels of the training images.

# %%
from kd_jax import config as configs
from kd_jax.tasks import pretrain


def train_teacher(out, steps):
  """Trains a small ResNet with labels; returns its accuracy on new digits."""
  config = configs.load("configs/quickstart.py").runs.teacher
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.steps, config.optim.warmup = steps, steps // 20
    config.student.overrides = {
      "num_classes": 10,
      "layers": (1, 1, 1, 1),
      "channels": (16, 32, 64, 128),
      "stem_width": 16,
    }
    config.preprocess.image_size = SIZE
    config.data = {"name": "folder", "dir": IMAGES}
    config.eval.judge = {"name": "folder", "dir": JUDGED}
  return pretrain.run(config, out).metrics["eval/accuracy"]


if not TEACHER:
  TEACHER = "runs/teacher"
  print(f"accuracy of the teacher: {train_teacher(TEACHER, steps=200):.3f}")

# %% [markdown]
# ## Distil
# One call. What it chooses, and why, is in the first lines. The student is a
# network of 0.1 million parameters, and 160 steps are a first try: without
# `steps` an accelerator runs the full budget. `kd-jax models` lists the other
# students; `"resnet18"` is a good one on a GPU.

# %%
import kd_jax

STUDENT = "test_efficientnet"
FAST = {"steps": 160, "batch_size": 256} if ON_CPU and not PATH else {}
if not PATH:
  FAST["image_size"] = SIZE

RUN = kd_jax.distill(IMAGES, TEACHER, STUDENT, "runs/mine", **FAST)

# %% [markdown]
# ## Look at the features
# `kd_jax.embed` gives one row per image. For the pictures on the left, these
# are the images that the student finds most alike.

# %%
names, features = kd_jax.embed(JUDGED, RUN)
print(len(names), "images x", features.shape[1], "features")

unit = features - features.mean(0)
unit /= np.linalg.norm(unit, axis=1, keepdims=True) + 1e-6
rows = []
for query in np.linspace(0, len(names) - 1, 4).astype(int):
  rows += list(np.argsort(-unit @ unit[query], kind="stable")[:8])
heads = ["query", *(f"{k}." for k in range(1, 8))]
show([Path(JUDGED, names[i]) for i in rows], columns=8, titles=heads)

# %% [markdown]
# t-SNE puts images beside each other whose features are alike. The colours are
# the classes, which the student has never seen.

# %%
from sklearn.manifold import TSNE

classes = np.array([name.split("/")[0] for name in names])
labelled = len(set(classes)) > 1 and "/" in names[0]
flat = TSNE(perplexity=min(30, len(names) // 4), random_state=0)
points = flat.fit_transform(unit)
plt.figure(figsize=(5, 4), dpi=80)
for each in sorted(set(classes)) if labelled else [None]:
  chosen = classes == each if labelled else slice(None)
  plt.scatter(*points[chosen].T, s=8, label=each)
if labelled:
  plt.legend(fontsize=7, ncol=2)
plt.axis("off")
plt.show()

# %% [markdown]
# ## Few labels
# Is the student worth anything? We take ten labelled images of every class,
# fit a linear classifier on frozen features, and ask it about all others. The
# same with an untrained student and with the pixels shows what distillation
# added. The figures are of one draw of the labels: take differences of a few
# points as chance.

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kd_jax.convert import save_timm

model, trained = kd_jax.load_pretrained(STUDENT, RUN / "student")
start = jax.jit(model.init)(
  jax.random.key(0), np.zeros((1, SIZE, SIZE, 3), np.float32)
)
save_timm(model, start, "runs/untrained", name=STUDENT)


def pixels():
  """Every image as a row."""
  files = [Image.open(Path(JUDGED, name)).convert("RGB") for name in names]
  return np.stack([np.ravel(x.resize((SIZE, SIZE))) for x in files]) / 255


def few_labels(rows, shots=10):
  """Share of the images that a linear classifier names rightly."""
  rng = np.random.default_rng(0)
  order = rng.permutation(len(rows))
  few = np.concatenate(
    [order[classes[order] == each][:shots] for each in sorted(set(classes))]
  )
  rest = np.setdiff1d(order, few)
  linear = LogisticRegression(C=0.1, max_iter=2000)
  probe = make_pipeline(StandardScaler(), linear)
  probe.fit(rows[few], classes[few])
  return probe.score(rows[rest], classes[rest])


RESULTS = {}
if labelled:
  RESULTS = {
    "pixels": few_labels(pixels()),
    "untrained student": few_labels(
      kd_jax.embed(JUDGED, "./runs/untrained").features
    ),
    "student": few_labels(features),
    "teacher": few_labels(kd_jax.embed(JUDGED, TEACHER).features),
    "chance": 1 / len(set(classes)),
  }
for name, share in RESULTS.items():
  print(f"{name:<18} {share:.3f}")

# %% [markdown]
# ## Take the student home
# `runs/mine/export/timm` holds `model.safetensors` and `config.json`. On Colab
# the browser saves them; elsewhere they are already yours.

# %%
import shutil

ARCHIVE = shutil.make_archive("student", "zip", RUN / "export" / "timm")
if "google.colab" in sys.modules:
  from google.colab import files

  files.download(ARCHIVE)
else:
  print("student:", Path(ARCHIVE).name, "in", Path.cwd())

# %% [markdown]
# In JAX:

# %%
model, variables = kd_jax.load_pretrained(STUDENT, RUN / "export" / "timm")
taps = model.apply(
  variables, np.zeros((1, SIZE, SIZE, 3), np.float32), train=False
)
print({name: taps[name].shape for name in ("stage4", "pooled")})

# %% [markdown]
# In PyTorch, where `pip install torch timm` was done:

# %%
if importlib.util.find_spec("timm"):
  import timm

  network = timm.create_model(
    STUDENT,
    num_classes=0,
    checkpoint_path=str(RUN / "export" / "timm" / "model.safetensors"),
  )
  print(sum(x.numel() for x in network.parameters()), "parameters")
else:
  print("timm is not installed here")

# %% [markdown]
# `runs/mine/report.html` shows curves and pictures of the run, and
# `runs/mine/config.py` is the config that it ran: copy and change it, as
# `docs/start.md` says. Next: `bank.ipynb` stores what the teacher says, and
# `own_method.ipynb` writes a method in one cell.
