"""The block of MobileOne (arXiv:2206.04040), and of FastViT (2303.14189)."""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.convs import conv_norm

Rule = tuple[str, str, str]


class MobileOne(nn.Module):
  """Branches of one convolution, gates, an activation.

  Attributes:
    features: number of output channels.
    style: see `conv_norm`.
    size: width of the window.
    stride: step in pixels.
    groups: number of channel groups.
    identity: have a branch without a convolution where shapes agree.
    branches: number of convolutions of that window.
    scale: have a 1x1 branch, too, if the window is larger.
    se_width: hidden channels of squeeze-and-excitation; 0 leaves it out.
    act: whether the activation follows.
    drop_path: see `Branches`.
  """

  features: int
  style: conv_norm.Style
  size: int = 1
  stride: int = 1
  groups: int = 1
  identity: bool = True
  branches: int = 1
  scale: bool = True
  se_width: int = 0
  act: bool = True
  drop_path: float = 0.0

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Parameters `conv` and `se`."""
    kinds = [(f"kxk{i}", self.size) for i in range(self.branches)]
    if self.scale and self.size > 1:
      kinds.append(("scale", 1))
    same = self.stride == 1 and x.shape[-1] == self.features
    branches = conv_norm.Branches(
      self.features,
      self.style,
      tuple(kinds),
      identity=self.identity and same,
      stride=self.stride,
      groups=self.groups,
      drop_path=self.drop_path,
      name="conv",
    )
    y = branches(x, train=train)
    if self.se_width:
      se = layers.SqueezeExcite(self.se_width, self.style.dtype, name="se")
      y = se(y)
    return self.style.activate(y) if self.act else y


def rules(theirs: str, ours: str, gate: str = "se") -> tuple[Rule, ...]:
  """Names in timm of a block; see `kd_jax.convert.rules`.

  Args:
    theirs: its name there.
    ours: its path here.
    gate: what timm calls squeeze-and-excitation.
  """
  conv = f"{ours}/conv/"
  return (
    (
      f"{theirs}.conv_kxk.{{i}}.conv.weight",
      f"{conv}kxk{{i}}/conv/kernel",
      "conv",
    ),
    (f"{theirs}.conv_kxk.{{i}}.bn", f"{conv}kxk{{i}}/bn", "norm"),
    (f"{theirs}.conv_scale.conv.weight", f"{conv}scale/conv/kernel", "conv"),
    (f"{theirs}.conv_scale.bn", f"{conv}scale/bn", "norm"),
    (f"{theirs}.identity", f"{conv}identity", "norm"),
    (f"{theirs}.reparam_conv", f"{conv}merged", "conv2d"),
    (f"{theirs}.{gate}.fc1", f"{ours}/se/reduce", "conv2d"),
    (f"{theirs}.{gate}.fc2", f"{ours}/se/expand", "conv2d"),
  )
