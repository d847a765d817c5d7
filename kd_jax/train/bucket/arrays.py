"""The arrays of a checkpoint in a bucket, in the parts that devices hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tensorstore as ts

from kd_jax.buckets import store

Part = tuple[Any, np.ndarray]
"""Slices of an array, and what is there."""


def flat(tree: Any) -> dict[str, Any]:
  """{path: array}, in the order of `jax.tree.leaves`."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def chunk(leaf: Any) -> list[int]:
  """The shape of what a device holds."""
  shape = leaf.shape
  if isinstance(leaf, jax.Array):
    shape = leaf.sharding.shard_shape(shape)
  return [max(1, size) for size in shape]


def own(leaf: Any) -> Iterator[Part]:
  """The parts that this process writes: of equal ones, the first."""
  if not isinstance(leaf, jax.Array):
    if jax.process_index() == 0:
      yield (..., np.asarray(leaf))
    return
  for shard in leaf.addressable_shards:
    if shard.replica_id == 0:
      yield shard.index, np.array(shard.data)


def array(url: str, name: str, notes: Mapping[str, Any]) -> Any:
  """An array; all about it is in the notes.

  Args:
    url: of the step.
    name: path of the array.
    notes: {'shapes': see `checkpoints.shapes`, 'chunks': {path: shape}}.

  Raises:
    ValueError: the notes are of another kind.
  """
  dtype, _, shape = notes["shapes"][name].partition("[")
  sizes = json.loads("[" + shape)
  order = {"endian": "little"} if np.dtype(dtype).itemsize > 1 else {}
  plain: dict[str, Any] = {"name": "bytes"}
  if order:
    plain["configuration"] = order
  grid = {"chunk_shape": notes["chunks"][name]}
  spec = {
    "driver": "zarr3",
    "kvstore": store.spec(store.join(url, "arrays", name)),
    "store_data_equal_to_fill_value": True,
    "fill_missing_data_reads": False,
    "metadata": {
      "shape": sizes,
      "data_type": dtype,
      "chunk_grid": {"name": "regular", "configuration": grid},
      "codecs": [plain, {"name": "crc32c"}],
    },
  }
  # All about it is in the spec: nothing to ask for, and nothing to wait for.
  shared = store.context(url.partition("://")[0], first_look=False)
  job = ts.open(spec, open=True, assume_metadata=True, context=shared)
  return store.result(job, url)


def restored(url: str, notes: Mapping[str, Any], like: Any) -> list[Any]:
  """The arrays of a step in the layout of the leaves of `like`.

  Args:
    url: of the step.
    notes: see `array`.
    like: a tree of arrays.

  Raises:
    ValueError: something is damaged, or cannot be read.
  """
  leaves = flat(like)
  jobs = {
    name: _reads(array(url, name, notes), leaf) for name, leaf in leaves.items()
  }
  return [_placed(leaf, jobs[name], url) for name, leaf in leaves.items()]


def _reads(stored: Any, leaf: Any) -> dict[str, Any]:
  """{slices, as text: job}, of every part that this process needs."""
  if not isinstance(leaf, jax.Array):
    return {"": stored.read()}
  indices = leaf.sharding.addressable_devices_indices_map(leaf.shape)
  parts = {str(index): index for index in indices.values()}
  return {text: stored[i].read() for text, i in parts.items()}


def _placed(leaf: Any, jobs: Mapping[str, Any], url: str) -> Any:
  """An array like `leaf` of what was read."""
  found = {index: store.result(job, url) for index, job in jobs.items()}
  if not isinstance(leaf, jax.Array):
    return np.asarray(found[""])
  part: Callable[[Any], Any] = lambda index: found[str(index)]  # noqa: E731
  return jax.make_array_from_callback(leaf.shape, leaf.sharding, part)
