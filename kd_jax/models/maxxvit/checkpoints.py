"""timm's names of CoAtNet and MaxViT, and files of other window sizes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kd_jax.models.blocks.tokens import window_checkpoints

_POINTS = tuple((f"mlp.fc{i}", f"mlp/fc{i}") for i in (1, 2))
_CONV = (
  *((f"{n}.weight", f"{n}/kernel", "conv") for n in ("conv1_1x1", "conv2_kxk")),
  ("pre_norm", "pre_norm", "norm"),
  ("norm1", "norm1", "norm"),
  ("norm2", "norm2", "norm"),
  ("se_early.fc1", "se_early/reduce", "conv2d"),
  ("se_early.fc2", "se_early/expand", "conv2d"),
  ("se.fc1", "se/reduce", "conv2d"),
  ("se.fc2", "se/expand", "conv2d"),
  ("conv3_1x1", "conv3_1x1", "conv2d"),
  ("shortcut.expand", "shortcut/expand", "conv2d"),
  ("conv_dw", "conv_dw", "conv2d"),
  ("norm", "norm", "affine"),
  ("ls.gamma", "ls/gamma", "copy"),
)
_TABLE = "relative_position_bias_table"


def _pointwise(theirs: str, ours: str) -> tuple[tuple[str, str, str], ...]:
  """A 1x1 convolution with a bias there, a linear layer here."""
  return (
    (f"{theirs}.weight", f"{ours}/kernel", "pointwise"),
    (f"{theirs}.bias", f"{ours}/bias", "copy"),
  )


def _bias(theirs: str, ours: str) -> tuple[tuple[str, str, str], ...]:
  return (
    (f"{theirs}.rel_pos.{_TABLE}", f"{ours}/rel_pos/{_TABLE}", "copy"),
    (f"{theirs}.rel_pos.mlp.fc1", f"{ours}/rel_pos/fc1", "dense"),
    (f"{theirs}.rel_pos.mlp.fc2", f"{ours}/rel_pos/fc2", "dense"),
  )


def _branches(theirs: str, ours: str) -> tuple[tuple[str, str, str], ...]:
  return (
    (f"{theirs}norm1", f"{ours}norm1", "norm"),
    (f"{theirs}norm2", f"{ours}norm2", "norm"),
    (f"{theirs}ls1.gamma", f"{ours}ls1/gamma", "copy"),
    (f"{theirs}ls2.gamma", f"{ours}ls2/gamma", "copy"),
  )


def _convs(theirs: str, ours: str) -> tuple[tuple[str, str, str], ...]:
  return (
    *((f"{theirs}{t}", f"{ours}{o}", how) for t, o, how in _CONV),
    *(
      rule
      for t, o in _POINTS
      for rule in _pointwise(f"{theirs}{t}", f"{ours}{o}")
    ),
  )


def _attention(theirs: str, ours: str) -> tuple[tuple[str, str, str], ...]:
  return (
    (f"{theirs}.qkv", f"{ours}/qkv", "dense"),
    (f"{theirs}.proj", f"{ours}/proj", "dense"),
    *_bias(theirs, ours),
  )


def _partition(theirs: str, ours: str) -> tuple[tuple[str, str, str], ...]:
  return (
    *_branches(f"{theirs}.", f"{ours}/"),
    (f"{theirs}.mlp.fc1", f"{ours}/mlp/fc1", "dense"),
    (f"{theirs}.mlp.fc2", f"{ours}/mlp/fc2", "dense"),
  )


def _block(theirs: str, ours: str) -> tuple[tuple[str, str, str], ...]:
  """Blocks of all kinds."""
  return (
    *_convs(theirs, ours),
    *_convs(f"{theirs}conv.", f"{ours}conv/"),
    *_convs(f"{theirs}conv.{{i}}.", f"{ours}conv{{i}}/"),
    *_branches(theirs, ours),
    (f"{theirs}norm1.norm", f"{ours}norm1_norm", "norm"),
    *_pointwise(f"{theirs}attn.qkv", f"{ours}attn/qkv"),
    *_pointwise(f"{theirs}attn.proj", f"{ours}attn/proj"),
    *_bias(f"{theirs}attn", f"{ours}attn"),
    *(
      rule
      for name in ("attn_block", "attn_grid")
      for rule in (
        *_partition(f"{theirs}{name}", f"{ours}{name}"),
        *_attention(f"{theirs}{name}.attn", f"{ours}{name}/attn"),
        *_attention(f"{theirs}attn.{name}", f"{ours}attn/{name}"),
      )
    ),
    *_partition(f"{theirs}attn", f"{ours}attn"),
  )


RULES = (
  ("stem.conv1", "params/stem/conv1", "conv2d"),
  ("stem.norm1", "params/stem/norm1/norm", "norm"),
  ("stem.conv2", "params/stem/conv2", "conv2d"),
  *(
    rule
    for k in range(4)
    for rule in _block(
      f"stages.{k}.blocks.{{b}}.", f"params/stage{k + 1}/block{{b}}/"
    )
  ),
  ("norm", "params/neck/norm", "norm"),
  ("head.norm", "params/neck/head_norm", "norm"),
  ("head.pre_logits.fc", "params/neck/fc", "dense"),
  ("head.fc", "params/head", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """Layers that were convolutions, and biases of other window sizes."""
  return {
    name: _fit(name, value, shapes.get(name))
    for name, value in state_dict.items()
  }


def _fit(
  name: str, value: np.ndarray, want: tuple[int, ...] | None
) -> np.ndarray:
  if want is None or np.shape(value) == want:
    return value
  if name.endswith(_TABLE):
    return _table(value, want)
  if np.ndim(value) != len(want) and np.size(value) == np.prod(want):
    return np.reshape(value, want)
  return value


def _table(value: np.ndarray, want: tuple[int, ...]) -> np.ndarray:
  if np.ndim(value) != len(want):
    return value
  if len(want) == 2:
    return window_checkpoints.resize_table(value, want[0], 0)
  heads = len(value)
  flat = np.reshape(value, (heads, -1)).T
  rows = want[1] * want[2]
  flat = window_checkpoints.resize_table(flat, rows, 0)
  return np.reshape(flat.T, want)
