"""A finished detector as a program: images in, detections out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Int, UInt8

from kd_jax.train.views import as_unit
from kd_jax.transfer.detection.detector import Detector
from kd_jax.types import Variables

OUTPUTS = ("boxes", "scores", "classes", "masks")


def stablehlo(
  model: Detector,
  variables: Variables,
  canvas: tuple[int, int],
  platforms: tuple[str, ...],
) -> bytes:
  """Both stages and suppression, with the weights, for any batch.

  Args:
    model: the network.
    variables: its weights, which become constants of the program.
    canvas: height and width of the images, pixels.
    platforms: that it shall run on, as JAX calls them.

  Returns:
    What `jax.export.deserialize` reads: a function of uint8 RGB images
    (n, *canvas, 3), each in the upper left corner of its canvas, and of their
    int32 heights and widths (n, 2). It returns `OUTPUTS`, see `Detector`;
    'masks' if the network has them.

  Raises:
    ValueError: the network does not suit the canvas.
  """

  def one(image: UInt8[Array, "h w 3"], size: Int[Array, " 2"]) -> dict:
    taps = model.apply(
      variables, as_unit(image[None]), train=False, size=size[None]
    )
    return {name: taps[name][0] for name in OUTPUTS if name in taps}

  # Mapped over the images: models may count them, which a symbol cannot do.
  (n,) = export.symbolic_shape("n")
  images = jax.ShapeDtypeStruct((n, *canvas, 3), np.uint8)
  sizes = jax.ShapeDtypeStruct((n, 2), jnp.int32)
  mapped = jax.jit(jax.vmap(one))
  program = export.export(mapped, platforms=platforms)(images, sizes)
  return bytes(program.serialize())
