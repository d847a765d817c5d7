"""What fields of networks of tokens may be."""

from __future__ import annotations

from typing import Protocol

from kd_jax.models import backbone
from kd_jax.models.blocks.tokens import patches


class Tokens(Protocol):
  """A network whose fields `check_fields` reads.

  Attributes:
    img_size: see `token_net.TokenNet`.
    patch_size: the same.
    embed_dim: the same.
  """

  img_size: patches.Pair
  patch_size: patches.Pair
  embed_dim: int


def check_fields(model: Tokens, *, depth: str = "depth") -> None:
  """Raises ValueError for impossible fields.

  Args:
    model: has `num_heads` too where it attends, and `ragged` where patches need
      not tile the images.
    depth: name of its field that says the number of blocks.
  """
  for name in ("img_size", "patch_size"):
    value = getattr(model, name)
    backbone.positive(name, patches.pair(value), 2)
  patches.grid_of(
    patches.pair(model.img_size),
    patches.pair(model.patch_size),
    ragged=getattr(model, "ragged", False),
  )
  blocks = getattr(model, depth)
  if blocks < 4:
    raise ValueError(
      f"{depth} is {blocks}; it must be 4 or more, one block per stage"
    )
  if model.embed_dim < 1:
    raise ValueError(f"embed_dim is {model.embed_dim}; it must be > 0")
  heads = getattr(model, "num_heads", 1)
  if heads < 1 or model.embed_dim % heads:
    raise ValueError(
      f"num_heads is {heads}; it must divide embed_dim={model.embed_dim}"
    )
