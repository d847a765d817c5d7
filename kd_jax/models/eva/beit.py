"""BEiT (arXiv:2106.08254) and BEiT v2 (2208.06366) with timm's names.

Every block has a bias per relative position of two patches, and one each for
class to patch, patch to class and class to class; all start at 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks.tokens import transformer, windows
from kd_jax.models.eva import base


def _variant(
  size: str, image: int = 224, **more: backbone.FieldValue
) -> dict[str, Any]:
  large = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
  return {
    **(large if size == "large" else {}),
    "img_size": image,
    "input_size": (3, image, image),
    "crop_pct": 0.9 if image == 224 else 1.0,
    **more,
  }


_V2: dict[str, Any] = {
  "mean": backbone.IMAGENET_MEAN,
  "std": backbone.IMAGENET_STD,
}
VARIANTS = {
  "beit_base_patch16_224": _variant("base", init_values=0.1),
  "beit_base_patch16_384": _variant("base", 384, init_values=0.1),
  "beit_large_patch16_224": _variant("large"),
  "beit_large_patch16_384": _variant("large", 384),
  "beit_large_patch16_512": _variant("large", 512),
  "beitv2_base_patch16_224": _variant("base", **_V2),
  "beitv2_large_patch16_224": _variant("large", crop_pct=0.95, **_V2),
}

RULES = (
  *base.RULES,
  *(
    (f"blocks.{{b}}.{theirs}", base.BLOCK + ours, layout)
    for theirs, ours, layout in (
      ("attn.q_bias", "attn/q_bias", "copy"),
      ("attn.v_bias", "attn/v_bias", "copy"),
      (
        "attn.relative_position_bias_table",
        "relative_position_bias_table",
        "copy",
      ),
      ("gamma_1", "ls1/gamma", "copy"),
      ("gamma_2", "ls2/gamma", "copy"),
    )
  ),
  *transformer.BLOCK_RULES,
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


class Block(transformer.Block):
  """A block with a bias per relative position.

  Attributes:
    grid: patches of an image, down and across; None has no such bias.
  """

  grid: tuple[int, int] | None = None

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n t d"],
    *,
    train: bool,
    bias: Float[Array, "#n #heads t t"] | None = None,
    rotate: transformer.Rotate | None = None,
  ) -> Float[Array, "n t d"]:
    """See `transformer.Block`; a grid's bias takes the place of `bias`."""
    if self.grid:
      bias = self._bias(self.grid, x.shape[1])
    return super().__call__(x, train=train, bias=bias, rotate=rotate)

  def _bias(
    self, grid: tuple[int, int], tokens: int
  ) -> Float[Array, "1 h t t"]:
    rows = windows.table_length(grid) + 3
    table = self.param(
      "relative_position_bias_table",
      initializers.zeros,
      (rows, self.attn["num_heads"]),
      jnp.float32,
    )
    # The class token is the first, if it is there.
    index = relative_index(grid)[-tokens:, -tokens:]
    return table[index].transpose(2, 0, 1)[None]


def relative_index(grid: tuple[int, int]) -> np.ndarray:
  """Row of a block's table, per pair of tokens, the class token first.

  The last three rows are for class to patch, patch to class, class to class.
  """
  inner = windows.relative_index(grid)
  index = np.pad(inner, ((1, 0), (1, 0)))
  last = windows.table_length(grid)
  index[0], index[:, 0], index[0, 0] = last, last + 1, last + 2
  return index


class Model(base.Model):
  """BEiT family; `VARIANTS` lists the named members.

  Attributes:
    mean: see `Backbone`.
    std: see `Backbone`.
    init_values: see `base.Model`.
    use_abs_pos_emb: see `base.Model`.
    use_rel_pos_bias: have a bias per relative position in every block.
  """

  mean: tuple[float, ...] = (0.5, 0.5, 0.5)
  std: tuple[float, ...] = (0.5, 0.5, 0.5)
  init_values: float | None = 1e-5
  use_abs_pos_emb: bool = False
  use_rel_pos_bias: bool = True

  def blocks(
    self, numbers: Iterable[int]
  ) -> tuple[type[nn.Module], tuple[tuple[int, dict[str, Any]], ...]]:
    """See `token_net.TokenNet.blocks`."""
    return Block, tuple((i, self._block(i)) for i in numbers)

  def _block(self, number: int) -> dict[str, Any]:
    out = {"out_init": base.out_init(number)}
    return {
      "attn": {
        "num_heads": self.num_heads,
        "qkv_bias": self.qkv_bias,
        "key_bias": False,
        **out,
      },
      "mlp": {"width": int(self.embed_dim * self.mlp_ratio), **out},
      "eps": base.EPS,
      "init_values": self.init_values,
      "drop_path": self.drop_path_of(number),
      "dtype": self.dtype,
      "grid": self.grid if self.use_rel_pos_bias else None,
    }


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """Drops indices; resizes what depends on image and patch size."""
  return {
    name: base.fit(name, value, shapes)
    for name, value in state_dict.items()
    if not name.endswith("relative_position_index")
  }
