"""A backbone with a head that labels every pixel."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax import trees
from kd_jax.models import backbone, dependence
from kd_jax.models.blocks import maps
from kd_jax.models.blocks.tokens import patches, token_net
from kd_jax.transfer.heads import base
from kd_jax.types import STAGES, Network, Taps


class Segmenter(Network):
  """Logits per pixel; trained and evaluated as any student.

  Parameters: `backbone`, whose tree is that of the bare network whatever the
  heads read, `head`, and `aux` if there is one.

  Attributes:
    backbone: the network, without classifier (num_classes=0).
    head: its logits are what counts.
    aux: its logits are only a second loss; None has none.
  """

  backbone: backbone.Backbone
  head: base.MapHead
  aux: base.MapHead | None = None

  if TYPE_CHECKING:

    def __hash__(self) -> int:
      """By the fields."""
      ...

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.backbone.num_classes:
      raise ValueError(
        f"the backbone has a classifier of {self.backbone.num_classes} "
        "classes, which a segmenter does not read; make it with num_classes=0"
      )
    if self.aux is not None and self.aux.num_classes != self.num_classes:
      raise ValueError(
        f"head has {self.num_classes} classes and aux has "
        f"{self.aux.num_classes}; both must have those of the masks"
      )

  @property
  def num_classes(self) -> int:
    """Of the head."""
    return self.head.num_classes

  @property
  def num_features(self) -> int:
    """Width of the backbone's tap 'pooled'."""
    return self.backbone.num_features

  @property
  def example_size(self) -> tuple[int, int]:
    """See `Backbone`."""
    return self.backbone.example_size

  @property
  def NO_DECAY(self) -> tuple[str, ...]:  # noqa: N802 - a Backbone's name
    """See `Backbone`."""
    return self.backbone.NO_DECAY

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n h w c"],
    *,
    train: bool = False,
    begin: str = "stem",
    end: str = "head",
    train_from: str = "stem",
  ) -> Taps:
    """Runs the backbone as far as the heads read it, and the heads.

    Args:
      x: RGB images in [0, 1].
      train: batch statistics, stochastic depth and dropout; needs
        mutable=['batch_stats'] and the rng 'dropout'.
      begin: first stage of the backbone that runs; with end='head' it must be
        'stem', since the logits have the size of the image.
      end: last stage of the backbone; the heads run with 'head'.
      train_from: earlier stages of the backbone run as with train=False, and
        with 'head' all of it: the heads alone are trained.

    Returns:
      The backbone's taps; 'logits' (n, h, w, classes) float32, and
      'aux_logits' if there is `aux`. 'feature' is the mean of the last map
      where the backbone has not run as far as its own.

    Raises:
      ValueError: a head does not fit the backbone, or see `Backbone`.
    """
    backbone.one_of("train_from", train_from, STAGES)
    if end == "head":
      backbone.one_of("begin of a segmenter", begin, ("stem",))
    last = self._last_stage() if end == "head" else end
    taps = self.backbone(
      x,
      train=train and train_from != "head",
      begin=begin,
      end=last,
      train_from=train_from,
    )
    if end != "head":
      return taps
    taps = dict(taps)
    taps.pop("logits", None)  # Without a classifier they are 'pooled'.
    if "feature" not in taps:
      taps["feature"] = self._maps(("stage4",), taps, x)["stage4"].mean((1, 2))
    for name, head in (("logits", self.head), ("aux_logits", self.aux)):
      if head is not None:
        taps[name] = self._logits(head, taps, x, train)
    return taps

  def _last_stage(self) -> str:
    """The last stage that the heads read; all of them give the whole tree."""
    if self.is_initializing():
      return "head"
    heads = (self.head, self.aux) if self.aux is not None else (self.head,)
    names = {name for head in heads for name in head.needs}
    early = all(n in STAGES[:-1] or n.startswith("block") for n in names)
    return "stage4" if early else "head"

  def _logits(
    self, head: base.MapHead, taps: Taps, image: Array, train: bool
  ) -> Float[Array, "n h w classes"]:
    known = {k: v for k, v in taps.items() if not k.endswith("logits")}
    head.reads({k: jax.typeof(v) for k, v in known.items()})
    names = {base.tap_of(name, known) for name in head.needs}
    found = head(self._maps(names, known, image), train=train)
    found = found.astype(jnp.promote_types(found.dtype, jnp.float32))
    return maps.resize(found, maps.size_of(image), align_corners=True)

  def _maps(
    self, names: Collection[str], taps: Taps, image: Array
  ) -> dict[str, Array]:
    """The taps, tokens among those of `names` laid out as maps."""
    net, found = self.backbone, dict(taps)
    if isinstance(net, token_net.TokenNet):
      grid = net.grid_for(maps.size_of(image))
      for name in names:
        prefix = net.num_prefix_tokens
        found[name] = patches.tokens_to_map(taps[name], prefix, grid)
    return found


def unread(model: Segmenter) -> tuple[str, ...]:
  """Paths of parameters that no logits depend on, for `Phase.frozen`.

  They are there to take pre-trained weights, and would get no gradient: what
  comes behind the last map that a head reads.

  Args:
    model: the network.

  Returns:
    Paths of leaves, below 'student'.
  """
  taps = ("logits",) if model.aux is None else ("logits", "aux_logits")
  behind = dependence.parameters(model, taps)
  read = frozenset().union(*behind.values())
  every = trees.flatten(backbone.variable_shapes(model)["params"])
  return tuple(f"student/{path}" for path in every if path not in read)
