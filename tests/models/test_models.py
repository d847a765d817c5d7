"""Names, options, stages and taps of all families."""

from __future__ import annotations

import math
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import FAMILIES
from flax import linen as nn

from kd_jax import models, resolve, trees
from kd_jax.models import prefixes
from kd_jax.models.blocks import layers
from kd_jax.types import STAGES

FOLDER = pathlib.Path(__file__).parent
TINY = {
  "resnet": (
    "resnet26",
    {"layers": [1, 1, 1, 2], "channels": [8, 8, 8, 8], "stem_width": 8},
  ),
  "mobilenet": ("mobilenetv2_035", {"depth_multiplier": 0.25}),
}
IMAGES = np.random.default_rng(0).uniform(size=(4, 32, 48, 3)).astype("float32")


def _shapes(model, **call):
  image = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  return jax.eval_shape(
    lambda key, x: model.init_with_output(key, x, **call),
    jax.random.key(0),
    image,
  )


def _random(model):
  """Variables without the cost of compiling the initialisation."""
  rng = np.random.default_rng(1)
  _, shapes = _shapes(model)

  def draw(path, leaf):
    if path.endswith("kernel"):
      scale = math.sqrt(2 / math.prod(leaf.shape[:-1]))
      return np.float32(scale * rng.normal(size=leaf.shape))
    return np.float32(rng.uniform(0.5, 1.5, leaf.shape))

  flat = trees.flatten(shapes)
  return trees.unflatten({k: draw(k, v) for k, v in flat.items()})


@pytest.fixture(scope="module", params=TINY)
def tiny(request):
  name, fields = TINY[request.param]
  model = models.create_model(name, num_classes=6, **fields)
  variables = _random(model)
  run = jax.jit(
    model.apply,
    static_argnames=("train", "begin", "end", "train_from", "mutable"),
  )
  return model, variables, run, run(variables, IMAGES)


def test_names_belong_to_one_family_each():
  families = resolve.names("models", "VARIANTS")
  names = [
    name for f in families for name in resolve.symbol("models", f, "VARIANTS")
  ]
  assert len(set(names)) == len(names) > 400
  assert sorted(names) == models.list_models()
  assert set(prefixes.OF) == set(families)


def test_a_name_loads_no_family_but_its_own():
  code = (
    "import sys; from kd_jax import convert, models;"
    "models.create_model('mobilenetv2_100');"
    "assert models.exists('vit_tiny_patch16_224');"
    "assert not models.exists('inception_v3');"
    "print(*(m for m in sys.modules if 'kd_jax.models.' in m))"
  )
  run = subprocess.run(
    [sys.executable, "-c", code], check=True, capture_output=True, text=True
  )
  names = [m.split(".")[2:] for m in run.stdout.split()]
  loaded = {name[1] for name in names if len(name) > 1}
  families = loaded & {*resolve.names("models", "VARIANTS")}
  may = {f for f, starts in prefixes.OF.items() if "vit_" in starts}
  assert {"mobilenet", "vit"} <= families <= {"mobilenet", *may}


@pytest.mark.parametrize("family", resolve.names("models", "VARIANTS"))
def test_every_family_has_its_own_tests(family):
  """Counts and preprocessing of all its variants, against those of timm."""
  shared = (FOLDER / "test_families.py").read_text()
  if family in FAMILIES or f'"{family}": (' in shared:
    return
  texts = [path.read_text() for path in FOLDER.glob("test_*.py")]
  (text, *_) = [t for t in texts if re.search(rf"[\"']{family}[\"']", t)]
  for check in ("check_golden", "check_counts", "check_preprocessing"):
    assert check in text or check.removeprefix("check_") in text


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100"])
def test_output_stride(name):
  for stride in (32, 16, 8):
    taps, _ = _shapes(models.create_model(name, output_stride=stride))
    got = [64 // taps[s].shape[1] for s in STAGES[:-1]]
    assert got == [min(stride, 2 ** (i + 1)) for i in range(5)]


def test_stems_for_small_images():
  taps, _ = _shapes(models.create_model("resnet18", stem_type="cifar"))
  sizes = [taps[s].shape[1] for s in STAGES[:-1]]
  assert sizes == [64, 64, 32, 16, 8]
  taps, _ = _shapes(models.create_model("mobilenetv2_100", stem_stride=1))
  sizes = [taps[s].shape[1] for s in STAGES[:-1]]
  assert sizes == [64, 32, 16, 8, 4]


def test_top_level_names(tiny):
  model, variables, _, taps = tiny
  extra = {"neck"} if "final" in taps else set()
  assert set(variables["params"]) == {*STAGES} | extra
  assert taps["logits"].shape == (4, 6)
  assert taps["pooled"].shape == (4, model.num_features)


def test_chained_stages_equal_the_whole(tiny):
  _, variables, run, whole = tiny
  x, seen = IMAGES, set()
  for stage in STAGES:
    taps = run(variables, x, begin=stage, end=stage)
    for name, value in taps.items():
      np.testing.assert_allclose(value, whole[name], rtol=2e-4, atol=1e-5)
    seen |= set(taps)
    x = taps.get(stage)
  assert seen == set(whole)


def test_train_from_freezes_earlier_statistics(tiny):
  _, variables, run, whole = tiny
  near = {"rtol": 1e-4, "atol": 1e-5}
  taps, new = run(
    variables, IMAGES, train=True, train_from="stage3", mutable="batch_stats"
  )
  np.testing.assert_allclose(taps["stage2"], whole["stage2"], **near)
  assert float(jnp.abs(taps["stage3"] - whole["stage3"]).max()) > 1e-2
  old = trees.flatten(variables["batch_stats"])
  for path, value in trees.flatten(jax.device_get(new["batch_stats"])).items():
    moved = (value != old[path]).any()
    early = trees.is_under(path, STAGES[:3])
    assert moved != early, path


def test_every_parameter_gets_a_gradient(tiny):
  model, variables, _, _ = tiny
  weights = np.random.default_rng(3).normal(size=(4, 6)).astype("float32")

  def loss(params, stats, x):
    taps, _ = model.apply(
      {"params": params, "batch_stats": stats},
      x,
      train=True,
      mutable=["batch_stats"],
    )
    # Unequal weights: a sum over the batch is constant after normalisation.
    return (taps["logits"] * weights).sum()

  grads = jax.jit(jax.grad(loss))(
    variables["params"], variables["batch_stats"], IMAGES
  )
  for path, grad in trees.flatten(jax.device_get(grads)).items():
    assert np.isfinite(grad).all(), path
    assert np.abs(grad).max() > 0, path


def test_feature_lacks_the_last_activation(tiny):
  _, _, _, taps = tiny
  assert float(taps["feature"].min()) < 0
  assert float(taps["pooled"].min()) >= 0


def test_normalisation_and_channel_order():
  name, fields = TINY["resnet"]
  mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)

  def stem(images, **more):
    model = models.create_model(name, **fields, **more)
    return model.apply(variables, images, end="stem")["stem"]

  variables = _random(models.create_model(name, **fields))
  scaled = (IMAGES - np.float32(mean)) / np.float32(std)
  near = {"rtol": 1e-4, "atol": 1e-5}
  want = stem(scaled, mean=[0, 0, 0], std=[1, 1, 1])
  got = stem(IMAGES, mean=mean, std=std)
  np.testing.assert_allclose(got, want, **near)
  flipped = stem(IMAGES[..., ::-1], mean=mean, std=std, channel_order="bgr")
  np.testing.assert_allclose(flipped, want, **near)
  assert float(jnp.abs(stem(IMAGES) - want).max()) > 0.1


def test_no_classifier():
  name, fields = TINY["resnet"]
  taps, variables = _shapes(models.create_model(name, num_classes=0, **fields))
  assert "head" not in variables["params"]
  assert taps["logits"].shape == taps["pooled"].shape == (2, 32)


def test_drop_path_rates_are_those_of_timm():
  rates = []

  def note(call, args, kwargs, context):
    if isinstance(context.module, layers.DropPath):
      rates.append(context.module.rate)
    return call(*args, **kwargs)

  for name, want in (
    ("resnet18", [0.3 * i / 7 for i in range(1, 8)]),
    (
      "mobilenetv2_100",
      [0.3 * i / 17 for i in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15)],
    ),
  ):
    rates.clear()
    with nn.intercept_methods(note):
      _shapes(models.create_model(name, drop_path_rate=0.3))
    np.testing.assert_allclose(rates, want)


def test_bfloat16_computes_in_bfloat16_with_float32_state():
  name, fields = TINY["mobilenet"]
  model = models.create_model(name, dtype="bfloat16", **fields)
  taps, variables = _shapes(model)
  assert {a.dtype for a in taps.values()} == {jnp.dtype(jnp.bfloat16)}
  leaves = jax.tree.leaves(variables)
  assert {a.dtype for a in leaves} == {jnp.dtype(jnp.float32)}


def test_zero_init_last_starts_as_the_identity():
  name, fields = TINY["resnet"]
  model = models.create_model(name, zero_init_last=True, **fields)
  x = jnp.ones((1, 2, 2, 32))
  variables = model.init(jax.random.key(0), x, begin="stage4", end="stage4")
  block = variables["params"]["stage4"]["block1"]
  assert not block["bn3"]["scale"].any() and block["bn2"]["scale"].all()


@pytest.mark.parametrize(
  "name, fields, message",
  [
    ("resnet19", {}, r"no model 'resnet19'; there are \['resnet18'"),
    (18, {}, "no model 18; there are"),
    (["resnet18"], {}, r"no model \['resnet18'\]; there are"),
    ("resnet18", {"num_clases": 1}, r"'num_clases'; it has \['num_classes'"),
    ("resnet18", {"stem_stride": 1}, "no option 'stem_stride'"),
    ("resnet18", {"global_pool": "mean"}, "global_pool is 'mean'; allowed"),
    ("resnet18", {"output_stride": 4}, r"allowed: \[32, 16, 8\]"),
    ("resnet18", {"channel_order": "gbr"}, "channel_order is 'gbr'"),
    (
      "resnet18",
      {"mean": 0.5},
      "mean is 0.5 .float.; it must be of the type tuple",
    ),
    ("resnet18", {"std": [1, 1, math.nan]}, "it must be finite"),
    ("resnet18", {"std": [1, 0, 1]}, "std has a zero"),
    ("resnet18", {"drop_path_rate": 1.0}, r"1.0, not in \[0, 1\)"),
    ("resnet18", {"num_classes": -1}, "num_classes is -1"),
    ("resnet18", {"layers": [1, 1]}, "tuple of 4 positive integers"),
    ("resnet18", {"channels": [8, 8, 8, 0]}, "channels is .* positive"),
    ("resnet18", {"block": "wide"}, "block is 'wide'; allowed"),
    ("resnet18", {"stem_type": "wide"}, "stem_type is 'wide'; allowed"),
    ("resnet18", {"stem_width": 0}, "stem_width is 0"),
    ("resnet18", {"base_width": 128}, "basic blocks have cardinality=1"),
    ("resnet18", {"dtype": "float17"}, "dtype is 'float17'"),
    ("resnet18", {"dtype": "int32"}, "dtype is 'int32'"),
    ("mobilenetv2_100", {"stem_stride": 3}, "stem_stride is 3; allowed"),
    ("mobilenetv2_100", {"channel_multiplier": 0}, "it must be > 0"),
  ],
)
def test_wrong_options(name, fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model(name, **fields)


@pytest.mark.parametrize(
  "shape, dtype, call, message",
  [
    ((2, 64, 64, 3), "float32", {"begin": "stage5"}, "begin is 'stage5'"),
    ((2, 64, 64, 3), "float32", {"end": "neck"}, "end is 'neck'; allowed"),
    ((2, 64, 64, 3), "float32", {"train_from": "all"}, "train_from is 'all'"),
    (
      (2, 64, 64, 3),
      "float32",
      {"begin": "stage2", "end": "stem"},
      "end='stem' comes before begin='stage2'",
    ),
    ((2, 3, 64, 64), "float32", {}, r"\(n, h, w, 3\), got .*\(2, 3, 64, 64\)"),
    ((2, 64, 64, 3), "uint8", {}, "got uint8. Divide uint8 by 255"),
  ],
)
def test_wrong_calls(shape, dtype, call, message):
  model = models.create_model("resnet18")
  image = jax.ShapeDtypeStruct(shape, dtype)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lambda x: model.init(jax.random.key(0), x, **call), image)
