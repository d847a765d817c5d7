"""Files of vision transformers that name or size things differently."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from kd_jax.models.blocks.tokens import patches
from kd_jax.models.vit import foreign

_OPENAI = (
  ("conv1", "patch_embed.proj"),
  ("positional_embedding", "pos_embed"),
  ("class_embedding", "cls_token"),
  ("transformer.resblocks.", "blocks."),
  ("ln_pre", "norm_pre"),
  ("ln_post", "norm"),
  ("ln_", "norm"),
  ("in_proj_", "qkv."),
  ("out_proj", "proj"),
  ("mlp.c_fc", "mlp.fc1"),
  ("mlp.c_proj", "mlp.fc2"),
)
_TRUNKS = ("module.visual.trunk.", "visual.trunk.")
_TOWERS = ("module.visual.", "visual.")


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """Renames and resizes what files of other origin and size hold.

  It reads the image towers of OpenAI's and OpenCLIP's CLIP, the originals of
  DINOv2, TIPSv2, DeiT III, AIMv2, BEiT-3 and C-RADIO, and models of another
  image or patch size.
  Parameters of attention pooling are dropped if the model pools otherwise.

  Args:
    state_dict: tensors of a file.
    shapes: {timm name: shape} of the model.

  Returns:
    Tensors with timm's names.

  Raises:
    ValueError: a position embedding that cannot be resampled.
  """
  found = _tower(foreign.renamed(dict(state_dict), shapes))
  found = _dinov2(found)
  if "attn_pool.latent" not in shapes:
    found = _without(found, "attn_pool.")
  found = {
    re.sub(r"\.gamma_(\d)$", r".ls\1.gamma", name): value
    for name, value in _without(found, "pre_logits.").items()
  }
  return _resized(found, shapes)


def _tower(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  for prefix in _TOWERS:
    if prefix + "class_embedding" in found:
      return _openai(_below(found, prefix))
  for prefix in _TRUNKS:
    if prefix + "blocks.0.norm1.weight" in found:
      head = found.get(prefix.removesuffix("trunk.") + "head.proj.weight")
      return {**_below(found, prefix), **_classifier(head)}
  if "vision_encoder.mask_token" in found:
    return _below(found, "vision_encoder.")
  return found


def _openai(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  proj = found.pop("proj", None)
  out = _classifier(None if proj is None else np.transpose(proj))
  for name, value in found.items():
    for theirs, timm in _OPENAI:
      name = name.replace(theirs, timm)
    if name in ("cls_token", "pos_embed"):
      value = np.reshape(value, (1, -1, value.shape[-1]))
    out[name] = value
  return out


def _classifier(weight: np.ndarray | None) -> dict[str, np.ndarray]:
  if weight is None:
    return {}
  bias = np.zeros(len(weight), np.float32)
  return {"head.weight": weight, "head.bias": bias}


def _dinov2(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  if found.pop("mask_token", None) is None:
    return found
  if "register_tokens" in found:
    table = found.pop("pos_embed")
    found["reg_token"] = found.pop("register_tokens")
    found["cls_token"] = found["cls_token"] + table[:, :1]
    found["pos_embed"] = table[:, 1:]
  swaps = ((".mlp.w12.", ".mlp.fc1."), (".mlp.w3.", ".mlp.fc2."))
  for theirs, timm in swaps:
    found = {name.replace(theirs, timm): v for name, v in found.items()}
  return found


def _resized(
  found: dict[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  name = "patch_embed.proj.weight"
  kernel, shape = found.get(name), shapes.get(name)
  if kernel is not None and shape is not None:
    flat = (shape[0], math.prod(shape[1:]))
    kernel = kernel.reshape(shape) if kernel.shape == flat else kernel
    if kernel.ndim == 4:
      kernel = patches.resample_patch(kernel, (shape[2], shape[3]))
    found[name] = kernel
  if "pos_embed" in found:
    tokens = ("cls_token", "dist_token", "reg_token")
    count = sum(shapes[token][1] for token in tokens if token in shapes)
    found["pos_embed"] = patches.fit_positions(
      found["pos_embed"], shapes["pos_embed"], count
    )
  return found


def _below(found: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
  return {k[len(prefix) :]: v for k, v in found.items() if k.startswith(prefix)}


def _without(
  found: dict[str, np.ndarray], prefix: str
) -> dict[str, np.ndarray]:
  return {k: v for k, v in found.items() if not k.startswith(prefix)}
