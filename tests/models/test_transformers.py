"""Families of transformers against timm's golden outputs and counts."""

from __future__ import annotations

import jax
import numpy as np
import prints
import pytest
import zoo

from kd_jax import convert, models
from kd_jax.models.blocks.tokens import transformer
from kd_jax.models.byob import mobilevit
from kd_jax.models.tinyvit import blocks as tiny_vit
from kd_jax.models.vit import hybrid_stems
from kd_jax.models.xcit import blocks as xcit

# A small member, the block that repeats, and the error of bfloat16.
FAMILIES = {
  "hybrid": (
    "vit_small_r26_s32_224",
    {
      "embed_dim": 16,
      "depth": 4,
      "num_heads": 2,
      "img_size": 32,
      "conv_layers": (1,),
      "patch_size": 8,
    },
    (transformer.Block, hybrid_stems.Block),
    0.05,
  ),
  "tiny_vit": (
    "tiny_vit_5m_224",
    {
      "depths": (1, 1, 2, 1),
      "embed_dims": (8, 8, 16, 16),
      "num_heads": (1, 1, 2, 2),
      "window_sizes": (3, 3, 4, 2),
    },
    (tiny_vit.Block, tiny_vit.MBConv),
    0.1,
  ),
  "xcit": (
    "xcit_nano_12_p16_224",
    {"embed_dim": 16, "depth": 4, "num_heads": 2},
    xcit.Block,
    0.05,
  ),
}
# How many of the stored cases are small; others take seconds to compile.
QUICK = {"hybrid": 0, "tiny_vit": 1, "xcit": 1}
CASES = [
  pytest.param(
    family,
    i,
    id=f"{case[0]}-{i}",
    marks=pytest.mark.slow if i >= QUICK[family] else (),
  )
  for family in FAMILIES
  for i, case in enumerate(prints.load(family)[0])
]


@pytest.mark.parametrize(("family", "index"), CASES)
def test_golden_outputs_of_timm(family, index):
  prints.check(family, index, "float64", 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "index"), CASES)
def test_golden_outputs_of_timm_in_float32(family, index):
  prints.check(family, index, "float32", 2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_parameter_counts(family):
  prints.check_counts(family, FAMILIES[family][2])


@pytest.mark.parametrize("family", FAMILIES)
def test_preprocessing(family):
  prints.check_preprocessing(family)


# Small members of families whose other tests are elsewhere.
MOBILE_VIT = {"stem_chs": 8, "last_width": 0}
TINY = {
  **{
    name: (name, fields, error) for name, fields, _, error in FAMILIES.values()
  },
  "mobilevit": (
    "mobilevit_xxs",
    {
      **MOBILE_VIT,
      "blocks": (
        "bottle_d1_c8_g1_b2",
        "bottle_d1_c8_s2_g1_b2",
        "bottle_d1_c8_s2_g1_b2 mobilevit_d1_c8_t1_w16_p2",
        "bottle_d1_c16_s2_g1_b2",
        "bottle_d1_c16_s2_g1_b2 mobilevit_d1_c16_t1_w16_p3",
      ),
    },
    0.1,
  ),
  "mobilevit2": (
    "mobilevitv2_050",
    {
      **MOBILE_VIT,
      "blocks": (
        "bottle_d1_c8_s2_g1_b2",
        "bottle_d1_c8_s2_g1_b2 mobilevit2_d1_c8_g1_b0.5_t1_p2",
        "bottle_d1_c16_s2_g1_b2",
        "bottle_d1_c16_s2_g1_b2 mobilevit2_d1_c16_g1_b0.5_t2_p3",
      ),
    },
    0.1,
  ),
}


@pytest.fixture(scope="module", params=TINY)
def tiny(request):
  name, fields, error = TINY[request.param]
  made = zoo.Tiny(name, **fields)
  made.error = error
  return made


@pytest.mark.slow
def test_names(tiny):
  tiny.check_names()


@pytest.mark.slow
def test_chained_stages_equal_the_whole(tiny):
  tiny.check_chain(1e-3)


@pytest.mark.slow
def test_every_parameter_gets_a_gradient(tiny):
  tiny.check_gradients()


@pytest.mark.slow
def test_bfloat16(tiny):
  tiny.check_bfloat16(tiny.error)


@pytest.mark.slow
def test_saved_models_keep_their_options(tiny, tmp_path):
  convert.save_timm(tiny.model, tiny.variables, tmp_path, name=tiny.name)
  model, variables = convert.load_pretrained(tiny.name, tmp_path)
  assert model == tiny.model
  jax.tree.map(np.testing.assert_array_equal, variables, tiny.variables)


def test_places_share_the_bias_of_their_distance():
  found = tiny_vit.offsets(3)
  assert found.shape == (9, 9) and (found == found.T).all()
  np.testing.assert_array_equal(found[0], np.arange(9))
  # The middle to its neighbours: down, right, and both.
  np.testing.assert_array_equal(found[4, [1, 7, 3, 5]], [3, 3, 1, 1])
  assert set(found[4, [0, 2, 6, 8]]) == {4}


def test_patches_of_a_map():
  x = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
  y = mobilevit.cut(x, 2)
  assert y.shape == (2, 4, 6, 3)
  # Place 1 of a patch is its upper right pixel; patches go row by row.
  np.testing.assert_array_equal(y[:, 1, 4], x[:, 2, 3])
  np.testing.assert_array_equal(mobilevit.join(y, 2, (4, 6)), x)


def test_original_files_of_xcit():
  name, fields, *_ = FAMILIES["xcit"]
  model = models.create_model(name, **fields)
  wanted = zoo.drawn(model)
  file = {}
  for key, value in convert.to_timm(model, wanted).items():
    if key.startswith("cls_attn") and ".attn." in key and ".proj." not in key:
      head, which, tail = key.rsplit(".", 2)
      file.setdefault(f"{head}.qkv.{tail}", {})[which] = value
    else:
      file[key.replace("pos_embed.", "pos_embeder.")] = value
  file = {
    k: np.concatenate([v[i] for i in "qkv"]) if isinstance(v, dict) else v
    for k, v in file.items()
  }
  found = convert.from_timm(model, file)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize(
  ("name", "fields", "message"),
  [
    ("vit_base_mci_224", {"patch_size": 32}, "patch_size is 32; allowed"),
    ("vit_base_r50_s16_384", {"patch_size": 8}, "a multiple of 16"),
    ("vit_base_r50_s16_384", {"patch_size": (16, 32)}, "are squares"),
    ("vit_base_r50_s16_384", {"conv_layers": (1,) * 5}, "at most 4"),
    ("mobilevit_xxs", {"blocks": ("mobilevit_c8",)}, "KIND one of .*vit2"),
    ("tiny_vit_5m_224", {"num_heads": (2, 4, 3, 1)}, "num_heads is .*divide"),
    ("tiny_vit_5m_224", {"local_conv_size": 4}, "local_conv_size is 4; .* odd"),
    ("tiny_vit_5m_224", {"depths": (1, 2)}, "depths is .* 4 positive"),
    ("tiny_vit_5m_224", {"mlp_ratio": 0.0}, "mlp_ratio is 0.0; it must"),
    ("xcit_nano_12_p8_224", {"patch_size": 4}, "patch_size is 4; allowed"),
    ("xcit_nano_12_p8_224", {"depth": 3}, "depth is 3; it must be 4 or more"),
    ("xcit_nano_12_p8_224", {"embed_dim": 12}, "embed_dim is 12; .* of 8"),
    ("xcit_nano_12_p8_224", {"num_heads": 3}, "num_heads is 3; it must divide"),
    ("xcit_nano_12_p8_224", {"mlp_ratio": 0.0}, "mlp_ratio is 0.0; it must"),
    ("xcit_nano_12_p8_224", {"global_pool": "max"}, "global_pool is 'max'"),
  ],
)
def test_wrong_options(name, fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model(name, **fields)
