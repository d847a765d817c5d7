"""Files of EVA's kin that name or size things differently."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kd_jax.models.eva import base

Arrays = dict[str, np.ndarray]

_RENAMED = (
  ("mlp.ffn_ln", "mlp.norm"),
  ("attn.inner_attn_ln", "attn.norm"),
  ("mlp.w12", "mlp.fc1"),
  ("mlp.w1", "mlp.fc1_g"),
  ("mlp.w2", "mlp.fc1_x"),
  ("mlp.w3", "mlp.fc2"),
)
_MIM_ONLY = ("mask_token", "lm_head.weight", "lm_head.bias")
_DINOV3 = (
  ("ls1.gamma", "gamma_1"),
  ("ls2.gamma", "gamma_2"),
  ("storage_tokens", "reg_token"),
)
_DINOV3_ONLY = (".periods", ".bias_mask", "mask_token")
_SAPIENS = (
  ("storage_tokens", "reg_token"),
  ("patch_embed.projection.", "patch_embed.proj."),
  ("attn.wq.", "attn.q_proj."),
  ("attn.wk.", "attn.k_proj."),
  ("attn.wv.", "attn.v_proj."),
  ("attn.gamma.weight", "gamma_1"),
  (".ffn.", ".mlp."),
  (".ln1.", ".norm1."),
  (".ln2.", ".norm2."),
)
_PERCEPTION = (
  ("conv1", "patch_embed.proj"),
  ("positional_embedding", "pos_embed"),
  ("class_embedding", "cls_token"),
  ("transformer.resblocks.", "blocks."),
  ("ln_pre", "norm_pre"),
  ("ln_post", "norm"),
  ("ln_", "norm"),
  ("ls_1.gamma", "gamma_1"),
  ("ls_2.gamma", "gamma_2"),
  ("in_proj_", "qkv."),
  ("out_proj", "proj"),
  ("mlp.c_fc", "mlp.fc1"),
  ("mlp.c_proj", "mlp.fc2"),
  ("attn_pool.attn", "attn_pool"),
  ("attn_pool.layernorm", "attn_pool.norm"),
  ("attn_pool.probe", "attn_pool.latent"),
)


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> Arrays:
  """Renames and resizes what files of other origin and size hold.

  It reads the originals of EVA, DINOv3, Perception Encoder and Sapiens2,
  OpenCLIP's towers, and files of masked-image pre-training. Rotations that are
  not learnt and what only pre-training needs are dropped, as are parameters
  of attention pooling if the model pools otherwise.

  Args:
    state_dict: tensors of a file.
    shapes: {timm name: shape} of the model.

  Returns:
    Tensors with timm's names.
  """
  found = _tower(dict(state_dict))
  if "conv1.weight" in found:
    found = _perception(found)
  elif "blocks.0.attn.wq.weight" in found:
    found = _sapiens(found)
  elif "storage_tokens" in found:
    found = _dinov3(found, shapes)
  elif "mask_token" in found:
    found = _masked(found)
  if "attn_pool.latent" not in shapes:
    found = {k: v for k, v in found.items() if not k.startswith("attn_pool.")}
  prefix = sum(
    shapes[token][1] for token in ("cls_token", "reg_token") if token in shapes
  )
  out = {}
  for name, value in _renamed(found).items():
    out[name] = base.fit(name, value, shapes, num_prefix_tokens=prefix)
  return out


def _tower(found: Arrays) -> Arrays:
  """The image tower of a file of two."""
  for prefix in ("visual.trunk.", "visual."):
    if any(prefix + end in found for end in ("pos_embed", "conv1.weight")):
      below = {k: v for k, v in found.items() if k.startswith(prefix)}
      return {k.removeprefix(prefix): v for k, v in below.items()}
  return found


def _renamed(found: Arrays) -> Arrays:
  split = "blocks.0.attn.q_proj.weight" in found
  out = {}
  for name, value in found.items():
    if "rope" in name and name != "rope.freqs":
      continue
    name = _swap(name, _RENAMED)
    if split:
      name = name.replace(".q_bias", ".q_proj.bias")
      name = name.replace(".v_bias", ".v_proj.bias")
    out[name] = value
  return out


def _swap(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
  for theirs, timm in pairs:
    name = name.replace(theirs, timm)
  return name


def _masked(found: Arrays) -> Arrays:
  return {
    "fc_" + name if name.startswith("norm.") else name: value
    for name, value in found.items()
    if name not in _MIM_ONLY
  }


def _dinov3(found: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
  out = {}
  for name, value in found.items():
    unused = name.startswith(("projectors.", "local_cls_norm"))
    if unused or name.endswith(_DINOV3_ONLY):
      continue
    stem = name.removesuffix("qkv.bias")
    if stem == name:
      out[_swap(name, _DINOV3)] = value
    elif stem + "q_bias" in shapes:
      # The key's bias is held at zero.
      out[stem + "q_bias"], _, out[stem + "v_bias"] = np.split(value, 3)
  return out


def _sapiens(found: Arrays) -> Arrays:
  out = {}
  for name, value in found.items():
    name = _swap(name, _SAPIENS)
    if name.startswith("ln1."):
      name = name.replace("ln1.", "norm.")
    if name != "mask_token":
      out[name] = value
  return out


def _perception(found: Arrays) -> Arrays:
  out = {}
  for name, value in found.items():
    name = _swap(name, _PERCEPTION)
    if name == "proj":
      out["head.weight"] = np.transpose(value)
      out["head.bias"] = np.zeros(value.shape[1], np.float32)
      continue
    if name in ("cls_token", "pos_embed"):
      value = np.reshape(value, (1, -1, value.shape[-1]))
    if not name.startswith("attn_pool.qkv."):
      out[name] = value
      continue
    kind = name.removeprefix("attn_pool.qkv.")
    width = len(value) // 3
    out[f"attn_pool.q.{kind}"] = value[:width]
    out[f"attn_pool.kv.{kind}"] = value[width:]
  return out
