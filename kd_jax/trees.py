"""Nested dicts addressed by 'a/b/c' paths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Array, PyTree


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
  """{'a': {'b': x}} -> {'a/b': x}."""
  return traverse_util.flatten_dict(dict(tree), sep="/")


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `flatten`."""
  return traverse_util.unflatten_dict(dict(flat), sep="/")


def is_under(path: str, prefixes: Iterable[str]) -> bool:
  """Whether `path` is one of `prefixes` or lies below one of them."""
  return any(path == p or path.startswith(p + "/") for p in prefixes)


def select(
  tree: Mapping[str, Any],
  prefixes: Iterable[str],
  exclude: Iterable[str] = (),
) -> dict[str, Any]:
  """The leaves below `prefixes` and not below `exclude`, as {path: leaf}."""
  prefixes, exclude = tuple(prefixes), tuple(exclude)
  return {
    path: leaf
    for path, leaf in flatten(tree).items()
    if is_under(path, prefixes) and not is_under(path, exclude)
  }


def overlay(tree: Mapping[str, Any], flat: Mapping[str, Any]) -> dict[str, Any]:
  """`tree` with the leaves of `flat` ({path: leaf}) put in place."""
  return unflatten({**flatten(tree), **flat})


def merge(tree: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
  """`tree` with every leaf that `new` (nested) holds replaced."""
  return overlay(tree, flatten(new))


def fingerprint(tree: PyTree[Array | np.ndarray]) -> str:
  """16 hex digits that identify names, shapes, dtypes and values of a tree."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.ascontiguousarray(leaf)
    head = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};"
    digest.update(head.encode())
    digest.update(array.tobytes())
  return digest.hexdigest()[:16]
