"""DINOv3, Perception Encoder and the others of timm's `eva`."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import zoo

from kd_jax import convert, models
from kd_jax.models.blocks.tokens import patches, rotary

DINO = "vit_small_patch16_dinov3"
SMALL = {
  "embed_dim": 16,
  "depth": 4,
  "num_heads": 2,
  "img_size": 32,
  "patch_size": 8,
}


@pytest.fixture(scope="module")
def mixed():
  fields = {"num_reg_tokens": 2, "init_values": 0.5, "norm_layer": "rms"}
  name = "vit_small_patch16_rope_mixed_ape_224"
  return zoo.Tiny(name, **SMALL, **fields)


@pytest.fixture(scope="module")
def pooled():
  name = "vit_pe_core_small_patch16_384"
  fields = {**SMALL, "attn_pool_num_heads": 2}
  return zoo.Tiny(name, **fields, use_abs_pos_emb=False, qk_norm=True)


def test_tiny_members(mixed, pooled):
  assert mixed.variables["params"]["rope"]["freqs"].shape == (2, 4, 2, 4)
  for tiny in (mixed, pooled):
    tiny.check_chain()
    assert tiny.taps["logits"].shape == (4, 6)


def test_gradients(mixed, pooled):
  mixed.check_gradients()
  pooled.check_gradients(invisible=("attn/k_proj/bias",))


def test_bfloat16(pooled):
  pooled.check_bfloat16(0.05)


@pytest.mark.parametrize("size", [(16, 40), (24, 24)])
def test_grid_of_images_of_any_size(size):
  """As a model that is made for images of this size."""
  model = models.create_model(DINO, **SMALL)
  variables = zoo.drawn(model)
  images = np.random.default_rng(0).uniform(size=(1, *size, 3))
  images = images.astype("float32")
  got = jax.jit(model.apply)(variables, images)
  made = model.clone(img_size=size)
  want = jax.jit(made.apply)(variables, images)
  grid = patches.grid_of(size, (8, 8))
  for tap in ("block02", "stage4", "pooled"):
    np.testing.assert_array_equal(got[tap], want[tap])
  assert got["stage4"].shape == (1, 5 + grid[0] * grid[1], 16)
  # Places matter: the same patches on another grid differ.
  other = model.clone(img_size=size[::-1])
  stem = got["stem"]
  again = other.apply(variables, stem, begin="stage1", end="stage1")
  same = np.allclose(again["stage1"], got["stage1"], atol=1e-4)
  assert same == (size[0] == size[1])


@pytest.mark.parametrize(("side", "grid"), [(224, 14), (256, 16), (518, 33)])
def test_dense_taps_of_dinov3(side, grid):
  name, pad = "vit_base_patch16_dinov3", side == 518
  model = models.create_model(name, dynamic_img_pad=pad)
  image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
  with zoo.zeros():
    taps, _ = jax.eval_shape(
      lambda x: model.init_with_output(jax.random.key(0), x), image
    )
  assert taps["stage3"].shape == (1, 5 + grid * grid, 768)


def test_wrong_images_of_dinov3():
  model = models.create_model(DINO)
  image = jax.ShapeDtypeStruct((1, 518, 518, 3), np.float32)
  with pytest.raises(ValueError, match="16 x 16 .* do not tile .* 518 x 518"):
    jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
  tokens = jax.ShapeDtypeStruct((1, 5 + 14 * 14, 384), np.float32)
  with pytest.raises(ValueError, match="261 tokens of images of .* got 201"):
    jax.eval_shape(
      lambda x: model.init(jax.random.key(0), x, begin="stage2"), tokens
    )


def test_padded_images_of_dinov3():
  """As with the zeros in the images, which are normalised before."""
  model = models.create_model(DINO, **SMALL)
  variables = zoo.drawn(model)
  image = np.random.default_rng(0).uniform(size=(1, 37, 26, 3))
  image = image.astype("float32")
  black = np.broadcast_to(np.float32(model.mean), (1, 40, 32, 3)).copy()
  black[:, :37, :26] = image
  padded = model.clone(dynamic_img_pad=True)
  got = jax.jit(padded.apply)(variables, image)
  want = jax.jit(model.apply)(variables, black)
  assert padded.grid_for((37, 26)) == (5, 4)
  assert got["stage4"].shape == (1, 5 + 5 * 4, 16)
  for tap in ("stem", "stage4", "pooled"):
    np.testing.assert_allclose(got[tap], want[tap], rtol=1e-4, atol=1e-5)


def test_places():
  """Centres of patches in [-1, 1]; halves of the channels are turned."""
  turn = rotary.dinov3((2, 4), 8, temperature=1.0)
  angles = np.arctan2(turn.sin, turn.cos)[0, :, 0] / (2 * np.pi)
  rows = np.repeat([-0.5, 0.5], 4)
  columns = np.tile([-0.75, -0.25, 0.25, 0.75], 2)
  for k, places in enumerate((rows, rows, columns, columns)):
    np.testing.assert_allclose(
      np.cos(2 * np.pi * angles[:, k]), np.cos(2 * np.pi * places), atol=1e-12
    )
  x = np.zeros((1, 9, 1, 8), np.float32)
  x[..., 0] = 1
  turned = np.asarray(turn(x))[0, 1:, 0]
  np.testing.assert_allclose(turned[:, 0], turn.cos[0, :, 0, 0], atol=1e-6)
  np.testing.assert_allclose(turned[:, 4], turn.sin[0, :, 0, 0], atol=1e-6)
  swapped = rotary.cat_angles((2, 4), 8, indexing="xy", offset=1.0)
  plain = rotary.cat_angles((2, 4), 8, offset=1.0)
  np.testing.assert_array_equal(swapped, plain[:, [2, 3, 0, 1]])
  assert plain.min() > 0


def original_dinov3(tensors):
  old = {"mask_token": np.zeros((1, 16)), "rope_embed.periods": np.zeros(4)}
  old["local_cls_norm.weight"] = np.zeros(16)
  swaps = (
    ("gamma_", "ls"),
    ("reg_token", "storage_tokens"),
    ("mlp.fc1_g", "mlp.w1"),
    ("mlp.fc1_x", "mlp.w2"),
    ("mlp.fc2", "mlp.w3"),
  )
  for name, value in tensors.items():
    stem = name.removesuffix("q_bias")
    if name.endswith("v_bias"):
      continue
    if stem != name:
      rest = np.zeros_like(value), tensors[stem + "v_bias"]
      old[stem + "qkv.bias"] = np.concatenate([value, *rest])
      continue
    for timm, theirs in swaps:
      name = name.replace(timm, theirs)
    old[name + ".gamma" if ".ls" in name else name] = value
  return old


def original_perception(tensors):
  swaps = (
    ("attn_pool.mlp.fc1", "attn_pool.mlp.c_fc"),
    ("attn_pool.mlp.fc2", "attn_pool.mlp.c_proj"),
    ("attn_pool.norm", "attn_pool.layernorm"),
    ("attn_pool.latent", "attn_pool.probe"),
    ("attn_pool.proj", "attn_pool.attn.out_proj"),
    ("patch_embed.proj", "conv1"),
    ("norm_pre", "ln_pre"),
    ("norm1", "ln_1"),
    ("norm2", "ln_2"),
    ("attn.qkv.", "attn.in_proj_"),
    ("attn.proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("blocks.", "transformer.resblocks."),
    ("pos_embed", "positional_embedding"),
    ("cls_token", "class_embedding"),
  )
  old = {"logit_scale": np.ones(()), "text.x": np.ones(2)}
  for name, value in tensors.items():
    if name.startswith(("attn_pool.q.", "head.bias")):
      continue
    if name.startswith("attn_pool.kv."):
      query = tensors[name.replace("kv", "q")]
      name = name.replace("attn_pool.kv.", "attn_pool.attn.in_proj_")
      value = np.concatenate([query, value])
    if name == "head.weight":
      name, value = "proj", value.T
    for timm, theirs in swaps:
      name = name.replace(timm, theirs)
    name = "ln_post" + name[4:] if name.startswith("norm.") else name
    if name in ("class_embedding", "positional_embedding"):
      value = value[0, 0] if name == "class_embedding" else value[0]
    old["visual." + name] = value
  return old


def original_sapiens(tensors):
  swaps = (
    ("gamma_1", "attn.gamma.weight"),
    ("reg_token", "storage_tokens"),
    ("patch_embed.proj", "patch_embed.projection"),
    ("attn.q_proj", "attn.wq"),
    ("attn.k_proj", "attn.wk"),
    ("attn.v_proj", "attn.wv"),
    ("mlp.fc1", "ffn.w12"),
    ("mlp.fc2", "ffn.w3"),
    (".norm1", ".ln1"),
    (".norm2", ".ln2"),
  )
  old = {"mask_token": np.zeros((1, 16))}
  for name, value in tensors.items():
    for timm, theirs in swaps:
      name = name.replace(timm, theirs)
    old["ln1" + name[4:] if name.startswith("norm.") else name] = value
  return old


@pytest.mark.parametrize(
  ("name", "fields", "age"),
  [
    ("vit_small_plus_patch16_dinov3_qkvb", {}, original_dinov3),
    ("vit_pe_core_small_patch16_384", {}, original_perception),
    ("vit_base_patch16_sapiens2", {"num_kv_heads": 1}, original_sapiens),
  ],
)
def test_original_files(name, fields, age):
  model = models.create_model(name, **{**SMALL, "num_classes": 6, **fields})
  tensors = convert.to_timm(model, zoo.drawn(model))
  if "pe_core" in name:
    tensors["head.bias"][:] = 0
  old = age(tensors)
  assert set(old) != set(tensors)
  again = convert.to_timm(model, convert.from_timm(model, old))
  for key, want in tensors.items():
    np.testing.assert_array_equal(again[key], want, err_msg=key)


def test_a_key_bias_of_zeros_is_dropped():
  """Meta's files of the larger DINOv3 have biases that are all zero."""
  model = models.create_model("vit_base_patch16_dinov3", **SMALL)
  tensors = convert.to_timm(model, zoo.drawn(model))
  old = original_dinov3(tensors)
  old |= {f"blocks.{i}.attn.qkv.bias": np.zeros(48) for i in range(4)}
  again = convert.to_timm(model, convert.from_timm(model, old))
  assert again.keys() == tensors.keys()


def test_saved_models_keep_their_options(tmp_path, mixed):
  convert.save_timm(mixed.model, mixed.variables, tmp_path, name=mixed.name)
  model, variables = convert.load_pretrained(mixed.name, tmp_path)
  assert model == mixed.model
  jax.tree.map(np.testing.assert_array_equal, variables, mixed.variables)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"rope_type": "base"}, "rope_type is 'base'; allowed"),
    ({"norm_layer": "batch"}, "norm_layer is 'batch'; allowed"),
    ({"attn_type": "relative"}, "attn_type is 'relative'; allowed"),
    ({"rope_grid_indexing": "yx"}, "rope_grid_indexing is 'yx'; allowed"),
    ({"num_reg_tokens": -1}, "num_reg_tokens is -1; it must be >= 0"),
    ({"num_kv_heads": 4}, "num_kv_heads is 4; all must divide num_heads=6"),
    ({"num_kv_heads": [3]}, "one for each of the 12 blocks"),
    ({"num_kv_heads": 3}, "needs attn_type='rope' and qkv_fused=False"),
    (
      {"use_post_transformer_norm": True, "use_fc_norm": True},
      "use_post_transformer_norm=True needs use_fc_norm=False",
    ),
  ],
)
def test_wrong_options(fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model(DINO, **fields)
