"""Vision transformers' files as their authors wrote them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import zoo

from kd_jax import convert, models

SMALL = {
  "embed_dim": 16,
  "depth": 4,
  "num_heads": 2,
  "img_size": 32,
  "patch_size": 8,
}


def _old_openai(tensors):
  swaps = (
    ("patch_embed.proj", "conv1"),
    ("blocks.", "transformer.resblocks."),
    ("norm_pre", "ln_pre"),
    ("norm1", "ln_1"),
    ("norm2", "ln_2"),
    ("attn.qkv.", "attn.in_proj_"),
    ("attn.proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("pos_embed", "positional_embedding"),
    ("cls_token", "class_embedding"),
  )
  old = {"logit_scale": np.ones(())}
  for name, value in tensors.items():
    if name == "head.bias":
      value[:] = 0
      continue
    if name == "head.weight":
      name, value = "proj", value.T
    for timm, theirs in swaps:
      name = name.replace(timm, theirs)
    name = re.sub("^norm", "ln_post", name)
    squeezed = name in ("class_embedding", "positional_embedding")
    value = value.reshape(value.shape[1:]) if squeezed else value
    value = value.reshape(-1) if name == "class_embedding" else value
    old["visual." + name] = value
  return old


def _old_open_clip(tensors):
  tensors["head.bias"][:] = 0
  old = {f"visual.trunk.{k}": v for k, v in tensors.items() if "head" not in k}
  head = {"visual.head.proj.weight": tensors["head.weight"]}
  return {**old, **head, "text.positional_embedding": np.ones((3, 4))}


def _old_dinov2(tensors):
  old = {
    k.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v
    for k, v in tensors.items()
  }
  table, extra = old.pop("pos_embed"), np.full((1, 1, 16), 0.25, "float32")
  old["cls_token"] = old["cls_token"] - extra
  old["pos_embed"] = np.concatenate([extra, table], 1)
  old["register_tokens"] = old.pop("reg_token")
  return {**old, "mask_token": np.ones((1, 16), "float32")}


def _old_deit(tensors):
  old = {
    re.sub(r"ls(\d)\.gamma", r"gamma_\1", k): v for k, v in tensors.items()
  }
  kernel = old["patch_embed.proj.weight"]
  old["patch_embed.proj.weight"] = kernel.reshape(len(kernel), -1)
  return {**old, "pre_logits.fc.weight": np.ones((2, 2), "float32")}


def _old_aim(tensors):
  swaps = (
    ("norm1", "norm_1"),
    ("norm2", "norm_2"),
    ("mlp.fc1_g", "mlp.fc1"),
    ("mlp.fc1_x", "mlp.fc3"),
  )
  old = {}
  for name, value in tensors.items():
    for timm, theirs in swaps:
      name = name.replace(timm, theirs)
    if name.startswith("patch_embed."):
      name = name.replace("patch_embed", "preprocessor.patchifier")
    if name.startswith("norm."):
      name = "post_trunk_norm." + name.removeprefix("norm.")
    if name.startswith("blocks"):
      name = "trunk." + name
    old["preprocessor.pos_embed" if name == "pos_embed" else name] = value
  return old


def _old_beit3(tensors):
  swaps = (
    ("attn.norm", "self_attn.inner_attn_ln.A"),
    ("mlp.norm", "ffn.A.ffn_layernorm"),
    ("attn.proj", "self_attn.out_proj.A"),
    ("norm1", "self_attn_layer_norm.A"),
    ("norm2", "final_layer_norm.A"),
    ("mlp.fc", "ffn.A.fc"),
    ("blocks.", "beit3.encoder.layers."),
    ("patch_embed.", "beit3.vision_embed."),
    ("cls_token", "beit3.vision_embed.cls_token"),
  )
  old = {"beit3.vision_embed.mask_token": np.zeros(3)}
  for name, value in tensors.items():
    if name == "pos_embed":
      table = np.concatenate([np.ones((2, 16), "float32"), value[0]])
      old["beit3.encoder.embed_positions.A.weight"] = table
      continue
    if "qkv" in name:
      for kind, part in zip("qkv", np.split(value, 3), strict=True):
        near = name.replace("attn.qkv", f"self_attn.{kind}_proj.A")
        near = near.replace("blocks.", "beit3.encoder.layers.")
        old[near] = part
        old[near.replace(".A.", ".B.")] = part + 1
      continue
    for timm, theirs in swaps:
      name = name.replace(timm, theirs)
    old[name] = value
  return old


def _old_radio(tensors):
  tensors["patch_embed.proj.bias"][:] = 0
  start = "radio_model.model."
  old = {"radio_model.input_conditioner.norm_mean": np.zeros(3)}
  for name, value in tensors.items():
    if name.startswith("blocks."):
      old[start + name.replace(".gamma", ".grandma")] = value
  kernel = tensors["patch_embed.proj.weight"]
  tokens = [tensors["cls_token"][0], tensors["reg_token"][0]]
  start += "patch_generator."
  old[start + "embedder.weight"] = kernel.reshape(len(kernel), -1)
  old[start + "cls_token.token"] = np.concatenate(tokens)
  old[start + "pos_embed"] = tensors["pos_embed"]
  return old


def test_places_of_radio_are_resized_its_way():
  model = models.create_model("vit_base_patch16_radio_v3", **SMALL)
  large = model.clone(img_size=64)
  file = _old_radio(convert.to_timm(large, zoo.drawn(large)))
  found = convert.from_timm(model, file)["params"]["stem"]["pos_embed"]
  name = "radio_model.model.patch_generator.pos_embed"
  # Halved: the corners of four neighbours.
  four = file[name].reshape(4, 2, 4, 2, 16).mean((1, 3))
  np.testing.assert_allclose(found[0], four.reshape(16, 16), atol=1e-6)
  with pytest.raises(ValueError, match="resized for square images"):
    convert.from_timm(model.clone(img_size=(32, 40)), file)


@pytest.mark.parametrize(
  "name, fields, age",
  [
    ("aimv2_large_patch14_224", {}, _old_aim),
    ("beit3_base_patch16_224", {}, _old_beit3),
    ("vit_base_patch16_radio_v3", {"num_classes": 0}, _old_radio),
    ("vit_base_patch16_clip_quickgelu_224", {}, _old_openai),
    ("vit_base_patch16_siglip_224", {}, _old_open_clip),
    ("vit_giant_patch14_reg4_dinov2", {"mlp_ratio": 3.0}, _old_dinov2),
    ("deit3_base_patch16_224", {}, _old_deit),
  ],
)
def test_files_of_other_origin(name, fields, age):
  model = models.create_model(name, **{**SMALL, "num_classes": 6, **fields})
  tensors = convert.to_timm(model, zoo.drawn(model))
  old = age(tensors)
  got = convert.to_timm(model, convert.from_timm(model, old))
  for key, want in tensors.items():
    np.testing.assert_allclose(got[key], want, rtol=1e-5, atol=1e-6)
  assert set(old) != set(tensors)


def test_pooling_of_another_kind_drops_the_attention():
  fields = {**SMALL, "num_classes": 0}
  mapped = models.create_model("vit_base_patch16_siglip_224", **fields)
  plain = models.create_model("vit_base_patch16_siglip_gap_224", **fields)
  tensors = convert.to_timm(mapped, zoo.drawn(mapped))
  kept = convert.to_timm(plain, convert.from_timm(plain, tensors))
  assert kept.keys() == {k for k in tensors if not k.startswith("attn_pool.")}
