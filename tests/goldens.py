"""Regenerates the weights that the files of golden/timm were made with.

The files hold outputs of timm for weights that are a function of name and
shape alone, so that the weights need not be stored. Outputs come from a
float64 run; each field has its own tolerance, ten times the noise of float32.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "golden" / "timm"
_TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed", "latent")
_GAMMAS = ("gamma", "gamma_1", "gamma_2")


def _generator(seed: int) -> np.random.Generator:
  return np.random.Generator(np.random.PCG64(seed))


def make_param(
  name: str, shape: tuple[int, ...], center: float = 0.5, scale: float = 1.0
) -> np.ndarray:
  """One entry of the state_dict."""
  leaf = name.rsplit(".", 1)[-1]
  if leaf == "num_batches_tracked":
    return np.zeros(shape, np.int64)
  generator = _generator(zlib.crc32(name.encode()))
  if leaf == "running_var":
    return np.float32((0.5 + generator.random(shape)) * scale)
  z = generator.standard_normal(shape)
  return (_shaped(name, z, center) * scale).astype(np.float32)


def _shaped(name: str, z: np.ndarray, center: float) -> np.ndarray:
  """Standard normal numbers with the spread that suits the entry."""
  parts = name.split(".")
  leaf = parts[-1]
  rules = (
    (leaf == "running_mean", 0.0, 0.1),
    (leaf == "logit_scale", 3.0, 1.0),
    (leaf == "relative_position_bias_table", 0.0, 0.5),
    (leaf in _TOKENS, 0.0, 0.5),
    (leaf in _GAMMAS, 0.5, 0.2),
    ("grn" in parts, 0.0, 0.5 if leaf == "weight" else 0.1),
    (z.ndim < 2, float(leaf == "weight"), 0.1),
  )
  for holds, mean, std in rules:
    if holds:
      return mean + std * z
  if center and z.shape[1] > 1:
    mean = z.mean(axis=tuple(range(1, z.ndim)), keepdims=True)
    # A multiple of 2^-20: independent of the order of summation.
    z = z - center * (np.round(mean * 2**20) / 2**20)
  return z / math.sqrt(math.prod(z.shape[1:]))


def make_state_dict(meta: dict[str, Any]) -> dict[str, np.ndarray]:
  """{timm name: array in PyTorch's layout}."""
  recipe = meta["recipe"]
  return {
    name: make_param(
      name, tuple(shape), recipe["center"], recipe["scale"].get(name, 1.0)
    )
    for name, shape, _ in meta["state_dict"]
  }


def make_input(meta: dict[str, Any]) -> np.ndarray:
  """float32 NHWC, standard normal."""
  shape = tuple(meta["input"]["shape"])
  x = _generator(meta["input"]["seed"]).standard_normal(shape)
  return x.astype(np.float32).transpose(0, 2, 3, 1)


def load(case: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """(metadata, stored arrays)."""
  arrays = dict(np.load(FOLDER / f"{case}.npz"))
  return json.loads(arrays.pop("meta_json").tobytes()), arrays


def check(
  meta: dict[str, Any], arrays: dict[str, np.ndarray], field: str, got: Any
) -> None:
  """Compares `got` (maps: NHWC) with the field at the file's tolerance."""
  info = meta["tensors"][field]
  got = np.asarray(got, np.float64)
  got = got.transpose(0, 3, 1, 2) if got.ndim == 4 else got
  assert list(got.shape) == info["shape"]
  near = {"atol": info["atol"], "rtol": info["rtol"], "err_msg": field}
  stored = got.reshape(-1)[:: info["stride"]]
  np.testing.assert_allclose(stored, arrays[field].reshape(-1), **near)
  # Figures of the whole tensor see what the stored subset leaves out.
  whole = [got.mean(), got.std()]
  np.testing.assert_allclose(whole, [info["mean"], info["std"]], **near)
