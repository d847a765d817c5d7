"""Files of AIMv2, BEiT-3 and C-RADIO as their authors wrote them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import jax
import numpy as np

Arrays = dict[str, np.ndarray]

_AIM = (
  ("norm_1", "norm1"),
  ("norm_2", "norm2"),
  ("preprocessor.patchifier.", "patch_embed."),
  ("preprocessor.pos_embed", "pos_embed"),
  ("trunk.", ""),
  ("post_trunk_norm.", "norm."),
  ("mlp.fc1", "mlp.fc1_g"),
  ("mlp.fc3", "mlp.fc1_x"),
)
_BEIT3 = (
  ("beit3.", ""),
  ("vision_embed.cls_token", "cls_token"),
  ("vision_embed.", "patch_embed."),
  ("embed_positions.", "pos_embed."),
  ("encoder.", ""),
  ("layers.", "blocks."),
  ("ffn_layernorm.", "norm."),
  ("ffn.", "mlp."),
  ("self_attn_layer_norm.", "norm1."),
  ("self_attn.", "attn."),
  ("final_layer_norm.", "norm2."),
  ("inner_attn_ln", "norm"),
  ("out_proj", "proj"),
  (".A.", "."),
)
_BEIT3_ONLY = ("beit3.text_embed.weight", "beit3.vision_embed.mask_token")
_RADIO = "radio_model.model."


def renamed(found: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
  """Tensors with timm's names, of a file of one of the three, or as it is.

  Args:
    found: tensors of a file.
    shapes: {timm name: shape} of the model.
  """
  if "preprocessor.patchifier.proj.weight" in found:
    return {_swap(name, _AIM): value for name, value in found.items()}
  if any(name.startswith("beit3.") for name in found):
    return _beit3(found)
  if _RADIO + "patch_generator.embedder.weight" in found:
    return _radio(found, shapes)
  return found


def _swap(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
  for theirs, timm in pairs:
    name = name.replace(theirs, timm)
  return name


def _beit3(found: Arrays) -> Arrays:
  """The branch for images, A; query, key and value in one tensor."""
  out = {}
  for name, value in found.items():
    if ".B." in name or name in _BEIT3_ONLY:
      continue
    name = _swap(name, _BEIT3)
    if name == "pos_embed.weight":
      # The first two places are not of tokens.
      name, value = "pos_embed", value[None, 2:]
    out[name] = value
  for name in [k for k in out if re.search(r"attn\.q_proj\.", k)]:
    parts = [out.pop(name.replace("q_proj", f"{kind}_proj")) for kind in "qkv"]
    out[name.replace("q_proj", "qkv")] = np.concatenate(parts)
  return out


def _radio(found: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
  """The backbone; its first class token is the class token."""
  out = {}
  for name, value in found.items():
    name = name.removeprefix(_RADIO)
    if name == "patch_generator.embedder.weight":
      side = math.isqrt(value.shape[1] // 3)
      kernel = value.reshape(len(value), 3, side, side)
      out["patch_embed.proj.weight"] = kernel
      out["patch_embed.proj.bias"] = np.zeros(len(value), np.float32)
    elif name == "patch_generator.pos_embed":
      out["pos_embed"] = _places(value, shapes["pos_embed"])
    elif name == "patch_generator.cls_token.token":
      out["cls_token"], out["reg_token"] = value[None, :1], value[None, 1:]
    elif name.startswith("blocks."):
      out[name.replace(".grandma", ".gamma")] = value
  return out


def _places(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Square grids, bilinear without antialiasing, as RADIO resizes."""
  old, new = math.isqrt(table.shape[1]), math.isqrt(shape[1])
  if old == new:
    return table
  if new * new != shape[1]:
    raise ValueError(
      f"the position embedding of this file is resized for square images, the "
      f"model has {shape[1]} patches. Load it with a square img_size: images "
      "of other sizes are then accepted as they are."
    )
  width = table.shape[-1]
  maps = np.asarray(table, np.float32).reshape(1, old, old, width)
  resized = jax.image.resize(
    maps, (1, new, new, width), "bilinear", antialias=False
  )
  return np.asarray(resized).reshape(1, -1, width)
