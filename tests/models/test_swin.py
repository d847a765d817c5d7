"""Swin and Swin V2 against timm."""

from __future__ import annotations

import functools
import json
import math

import goldens as gw
import jax
import numpy as np
import pytest
import zoo
from flax import linen as nn

from kd_jax import convert, models, resolve
from kd_jax.convert import rules
from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import window_checkpoints, windows

COUNTS = {
  "swin": {
    "swin_tiny_patch4_window7_224": 28_288_354,
    "swin_small_patch4_window7_224": 49_606_258,
    "swin_base_patch4_window7_224": 87_768_224,
    "swin_base_patch4_window12_384": 87_903_584,
    "swin_large_patch4_window7_224": 196_532_476,
    "swin_large_patch4_window12_384": 196_735_516,
    "swin_s3_tiny_224": 28_328_674,
    "swin_s3_small_224": 49_737_298,
    "swin_s3_base_224": 71_125_762,
  },
  "swin_v2": {
    "swinv2_tiny_window8_256": 28_347_154,
    "swinv2_tiny_window16_256": 28_347_154,
    "swinv2_small_window8_256": 49_728_418,
    "swinv2_small_window16_256": 49_728_418,
    "swinv2_base_window8_256": 87_918_816,
    "swinv2_base_window16_256": 87_918_816,
    "swinv2_base_window12_192": 109_280_841,
    "swinv2_base_window12to16_192to256": 87_918_816,
    "swinv2_base_window12to24_192to384": 87_918_816,
    "swinv2_large_window12_192": 228_772_549,
    "swinv2_large_window12to16_192to256": 196_739_932,
    "swinv2_large_window12to24_192to384": 196_739_932,
  },
}
V1, V2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"
MAPS = {f"stage_{k}": f"stage{k + 1}" for k in range(4)}
# timm in float64: odd sizes, padded windows, resized tables of positions.
OPTIONS = dict(np.load(gw.FOLDER / "swin_options.npz"))
OPTION_CASES = json.loads(str(OPTIONS["cases"]))
SMALL = {"embed_dim": 8, "depths": (2, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
TINY = {
  **SMALL,
  "depths": (2, 1, 1, 1),
  "img_size": (32, 24),
  "window_size": 3,
}


@pytest.mark.slow
@pytest.mark.parametrize("case", [V1, V2])
def test_matches_timm(case):
  def features(taps):
    return taps["final"].transpose(0, 2, 3, 1)  # timm's is NHWC, too

  zoo.check_golden(case, {**zoo.FIELDS, **MAPS}, features)


@functools.cache
def _file(name, fields):
  """A state_dict with the weights of the goldens."""
  model = models.create_model(name, num_classes=5, **dict(fields))
  with zoo.zeros():
    entries = rules.entries(model)
  return {k: gw.make_param(k, e.shape, 0.0) for k, e in entries.items()}


def _frozen(fields):
  return tuple(
    (k, tuple(v) if isinstance(v, list) else v) for k, v in fields.items()
  )


@pytest.mark.parametrize("index", range(len(OPTION_CASES)))
def test_options_match_timm_in_float64(index):
  name, fields, size, stored = OPTION_CASES[index]
  fields = {**SMALL, **fields}
  file = _file(name, _frozen({**SMALL, **stored} if stored else fields))
  with jax.enable_x64(True):
    model = models.create_model(name, num_classes=5, **zoo.RAW, **fields)
    with zoo.zeros():
      variables = convert.from_timm(model, file)
    variables = jax.tree.map(lambda a: a.astype(np.float64), variables)
    x = np.random.Generator(np.random.PCG64(0)).standard_normal((2, 3, *size))
    images = x.transpose(0, 2, 3, 1)
    taps = jax.device_get(jax.jit(model.apply)(variables, images))
  assert taps["logits"].dtype == np.float64
  # timm resizes in float32.
  error = 2e-6 if stored and name == V1 else 1e-10
  near = {"rtol": error, "atol": error}
  for tap in ("logits", "pooled"):
    np.testing.assert_allclose(taps[tap], OPTIONS[f"{index}_{tap}"], **near)
  for k in range(4):
    got = taps[f"stage{k + 1}"].mean(-1)
    np.testing.assert_allclose(got, OPTIONS[f"{index}_map{k}"], **near)


@pytest.mark.slow
@pytest.mark.parametrize("family", COUNTS)
def test_counts_and_preprocessing(family):
  zoo.check_preprocessing(family)
  assert {*COUNTS[family]} == {*resolve.symbol("models", family, "VARIANTS")}
  for name, want in COUNTS[family].items():
    # The blocks of a stage are alike: tracing one of each is enough.
    model = models.create_model(name)
    params = zoo.shapes(model.clone(depths=(1, 1, 1, 1)))[1]["params"]
    more = zip(model.depths, range(1, 5), strict=True)
    total = _size(params)
    total += sum(
      (n - 1) * _size(params[f"stage{k}"]["block0"]) for n, k in more
    )
    assert total == want, name


def _size(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module", params=[V1, V2])
def tiny(request):
  return zoo.Tiny(request.param, **TINY)


def test_tiny(tiny):
  tiny.check_names()
  assert [tiny.taps[f"stage{k}"].shape[1:3] for k in range(1, 5)] == [
    (8, 6),
    (4, 3),
    (2, 2),
    (1, 1),
  ]
  np.testing.assert_array_equal(tiny.taps["feature"], tiny.taps["pooled"])
  tiny.check_chain()


# A pixel alone in its window has nothing to compare with.
ALONE = tuple(
  f"stage4/block0/attn/{leaf}"
  for leaf in (
    "relative_position_bias_table",
    "q_bias",
    "logit_scale",
    "cpb_mlp1/kernel",
    "cpb_mlp1/bias",
    "cpb_mlp2/kernel",
  )
)


def test_gradients_and_bfloat16(tiny):
  tiny.check_gradients(ALONE)
  tiny.check_bfloat16(0.03)


def test_drop_path_rates_are_those_of_timm():
  rates = []

  def note(call, args, kwargs, context):
    if isinstance(context.module, layers.DropPath):
      rates.append(context.module.rate)
    return call(*args, **kwargs)

  for name in (V1, V2):
    rates.clear()
    with nn.intercept_methods(note):
      zoo.shapes(models.create_model(name, **TINY, drop_path_rate=0.3))
    np.testing.assert_allclose(rates, np.repeat(np.linspace(0, 0.3, 5), 2))


def test_blocks_of_v2_start_as_the_identity():
  model = models.create_model(V2, **TINY)
  x = np.random.default_rng(0).normal(size=(1, 8, 6, 8)).astype("float32")
  taps, variables = jax.jit(
    lambda key: model.init_with_output(key, x, begin="stage1", end="stage1")
  )(jax.random.key(0))
  np.testing.assert_array_equal(taps["stage1"], x)
  attention = variables["params"]["stage1"]["block0"]["attn"]
  np.testing.assert_allclose(attention["logit_scale"], math.log(10), rtol=1e-6)
  assert not attention["cpb_mlp1"]["bias"].any()
  std = np.std(attention["cpb_mlp1"]["kernel"])
  np.testing.assert_allclose(std, 0.02, rtol=0.1)


def test_older_files(tiny):
  """Downsampling at the end of a stage, buffers, another classifier's name."""
  new = convert.to_timm(tiny.model, tiny.variables)
  old = {
    "layers.0.blocks.1.attn_mask": np.zeros((9, 9, 9)),
    "layers.0.blocks.0.attn.relative_position_index": np.zeros((9, 9), int),
    "layers.0.blocks.0.attn.relative_coords_table": np.zeros((1, 5, 5, 2)),
  }
  for name, value in new.items():
    for k in (1, 2, 3):
      name = name.replace(f"layers.{k}.downs", f"layers.{k - 1}.downs")
    old[name.replace("head.fc.", "head.")] = value
  assert len({*old} - {*new}) == 3 + 2 + 3
  again = convert.from_timm(tiny.model, old)
  jax.tree.map(np.testing.assert_array_equal, again, tiny.variables)


def test_saved_models_keep_their_windows(tiny, tmp_path):
  folder = convert.save_timm(
    tiny.model, tiny.variables, tmp_path, name=tiny.name
  )
  model, variables = convert.load_pretrained(tiny.name, folder)
  assert model == tiny.model
  jax.tree.map(np.testing.assert_array_equal, variables, tiny.variables)


def test_windows_may_come_from_json():
  pairs = [[3, 4], 3, [2, 2], 1]
  sizes = {"window_size": pairs, "pretrained_window_sizes": pairs}
  model = models.create_model(V2, **{**TINY, **sizes})
  assert hash(model) == hash(model.clone())
  assert model.window_size == ((3, 4), 3, (2, 2), 1)
  assert model.pretrained_window_sizes == ((3, 4), 3, (2, 2), 1)


def test_blocked_pairs_were_no_neighbours():
  window = windows.Window((2, 2), (1, 1))
  mask = windows.blocked((4, 4), window)
  place = np.arange(16).reshape(1, 4, 4, 1)
  rolled = np.roll(place, (-1, -1), (1, 2)).reshape(2, 2, 2, 2)
  tokens = rolled.transpose(0, 2, 1, 3).reshape(4, 4)
  for m, ids in enumerate(tokens):
    rows, columns = np.divmod(ids, 4)
    near = np.abs(rows[:, None] - rows) <= 1
    near &= np.abs(columns[:, None] - columns) <= 1
    np.testing.assert_array_equal(mask[m], ~near)
  assert windows.blocked((4, 4), windows.Window((2, 2), (0, 0))) is None


def test_tables_of_other_windows():
  table = np.random.default_rng(0).normal(size=(25, 2)).astype("float32")
  wide = window_checkpoints.resize_table(table, 81)
  # The place of a pixel relative to itself, and the corners, stay.
  np.testing.assert_allclose(wide[40], table[12], rtol=1e-6)
  np.testing.assert_allclose(wide[[0, -1]], table[[0, -1]], rtol=1e-4)
  message = r"25 relative positions cannot become one of 15: only square"
  with pytest.raises(ValueError, match=message):
    window_checkpoints.resize_table(table, 15)


@pytest.mark.parametrize(
  "name, fields, message",
  [
    (V1, {"img_size": (224, 0)}, "img_size is .* positive integer or a pair"),
    (V1, {"img_size": 3}, "img_size is 3; it must be at least patch_size=4"),
    (V1, {"window_size": (7, 7, 7)}, "window_size is .* or one of either per"),
    (V1, {"window_size": 0}, "window_size is 0; it must be a positive"),
    (V1, {"depths": (2, 2)}, "depths is .* tuple of 4 positive integers"),
    (V1, {"num_heads": (3, 6, 12, 25)}, "25 heads do not divide .* 768 of st"),
    (V1, {"embed_dim": 0}, "embed_dim is 0; it must be > 0"),
    (V1, {"global_pool": "token"}, "global_pool is 'token'; allowed"),
    (V2, {"pretrained_window_sizes": (8,)}, "it must have 4 entries"),
  ],
)
def test_wrong_options(name, fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model(name, **fields)


@pytest.mark.parametrize(
  "fields, size, begin, message",
  [
    (
      {},
      (32, 32, 3),
      "stem",
      r"stem reads .*\(32, 24\), got \(32, 32\).*strict",
    ),
    ({}, (9, 6, 8), "stage2", r"stage2 reads a size of \(8, 6\), got \(9, 6\)"),
    (
      {"strict_img_size": False},
      (30, 32, 3),
      "stem",
      "multiples of patch_size",
    ),
  ],
)
def test_wrong_images(fields, size, begin, message):
  model = models.create_model(V1, **{**TINY, **fields})
  images = jax.ShapeDtypeStruct((1, *size), np.float32)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
      lambda x: model.init(jax.random.key(0), x, begin=begin), images
    )
