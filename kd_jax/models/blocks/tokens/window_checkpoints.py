"""Files of Swin: tables of relative positions resized, older names."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from kd_jax.models.blocks.tokens import patches

_DOWNSAMPLE = "layers.0.downsample.reduction.weight"
_BUFFERS = ("relative_position_index", "relative_coords_table", "attn_mask")
_TABLE = "relative_position_bias_table"


def resize_table(
  table: np.ndarray, length: int, extra: int = 0
) -> Float[np.ndarray, "length h"]:
  """A table of relative positions for a square window of another size.

  As in BEiT: old positions are spaced geometrically, so that near ones keep
  their resolution; new ones are interpolated linearly.

  Args:
    table: (positions + extra, heads).
    length: rows of the result.
    extra: last rows, which are copied.

  Returns:
    The table.

  Raises:
    ValueError: a window is not square.
  """
  sides = [math.isqrt(max(n - extra, 0)) for n in (len(table), length)]
  if [s * s + extra for s in sides] != [len(table), length]:
    raise ValueError(
      f"a table of {len(table)} relative positions cannot become one of "
      f"{length}: only square windows are resized. Load the file with its own "
      "img_size and window_size."
    )
  old, new = sides
  inner = table[: len(table) - extra].reshape(old, old, -1)
  matrix = _interpolation(old, new)
  inner = np.einsum("ia,jb,abh->ijh", matrix, matrix, inner)
  rest = table[len(table) - extra :]
  return np.concatenate([inner.reshape(new * new, -1), rest]).astype(
    table.dtype
  )


def _interpolation(old: int, new: int) -> Float[np.ndarray, "new old"]:
  """Linear interpolation between geometrically spaced positions."""
  low, high = 1.01, 1.5
  ratio = low
  while high - low > 1e-6:
    ratio = (low + high) / 2
    if (1 - ratio ** (old // 2)) / (1 - ratio) > new // 2:
      high = ratio
    else:
      low = ratio
  half = np.cumsum([ratio**i for i in range(old // 2)])
  source = np.concatenate([-half[::-1], [0.0], half])
  target = np.arange(new) - new // 2
  rows = [np.interp(target, source, unit) for unit in np.eye(old)]
  return np.stack(rows, 1)


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """Files of Swin and Swin V2, original or of timm before 1.0.

  Drops buffers; moves `downsample` from the end of a stage to the start of
  the next one; renames the classifier; resizes patches and tables of relative
  positions.
  """
  old = _DOWNSAMPLE in state_dict
  out = {}
  for name, value in state_dict.items():
    if name.rsplit(".", 1)[-1] in _BUFFERS:
      continue
    name = _renamed(name) if old else name
    want = shapes.get(name)
    if want and value.shape != want:
      value = _fit(name, value, want)
    out[name] = value
  return out


def _fit(name: str, value: np.ndarray, want: tuple[int, ...]) -> np.ndarray:
  if name == "patch_embed.proj.weight" and value.ndim == 4:
    return patches.resample_patch(value, (want[2], want[3]))
  if name.endswith(_TABLE) and value.ndim == 2:
    return resize_table(value, want[0])
  return value


def _renamed(name: str) -> str:
  parts = name.split(".")
  if parts[0] == "head":
    return ".".join(["head", "fc", *parts[1:]])
  if parts[0] == "layers" and parts[2] == "downsample":
    parts[1] = str(int(parts[1]) + 1)
  return ".".join(parts)
