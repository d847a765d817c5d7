"""A gated MLP of separate layers; `transformer.Mlp` has them in one."""

from __future__ import annotations

from collections.abc import Callable

from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer


class SwiGLU(nn.Module):
  """Gated MLP with two first layers, `fc1_g` (the gate) and `fc1_x`.

  (arXiv:2002.05202)

  Attributes:
    width: hidden width.
    norm: kind of a normalisation `norm` before the last layer `fc2`; None is
      none.
    eps: of the normalisation.
    out_init: initialiser of the kernel of `fc2`.
    dtype: compute dtype.
    activation: of the gate.
    use_bias: all layers have a bias.
  """

  width: int
  norm: str | None = None
  eps: float = 1e-6
  out_init: initializers.Initializer = transformer.INIT
  dtype: layers.Dtype = None
  activation: Callable[[Array], Array] = nn.silu
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Keeps the width."""
    gate, y = (
      self._dense(self.width, name, transformer.INIT)(x)
      for name in ("fc1_g", "fc1_x")
    )
    y = self.activation(gate) * y
    if self.norm is not None:
      y = layers.NORMS[self.norm](self.eps, self.dtype, "norm")(y)
    return self._dense(x.shape[-1], "fc2", self.out_init)(y)

  def _dense(
    self, width: int, name: str, init: initializers.Initializer
  ) -> nn.Module:
    return layers.Dense(
      width,
      use_bias=self.use_bias,
      dtype=self.dtype,
      kernel_init=init,
      name=name,
    )
