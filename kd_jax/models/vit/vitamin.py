"""ViTamin (arXiv:2404.02132), with timm's names.

Inverted bottlenecks make the tokens of a vision transformer, whose MLPs are
gated and normalise their input once more. Initialisation: convolutions
N(0, 2 / fan out), the rest as in `vit`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import patches, transformer
from kd_jax.models.vit import checkpoints, variants, vit

adapt = checkpoints.adapt

# embed_dim, depth, num_heads, widths of the convolutions, classes.
_SIZES = {
  "small": (384, 14, 6, (64, 128), 768),
  "base": (768, 14, 12, (128, 256), 768),
  "large": (1024, 31, 16, (160, 320), 768),
  "large2": (1024, 31, 16, (160, 320), 1024),
  "xlarge": (1152, 32, 16, (192, 384), 1152),
}


def _variant(size: str, image: int) -> dict[str, Any]:
  width, depth, heads, convs, classes = _SIZES[size]
  return {
    "embed_dim": width,
    "depth": depth,
    "num_heads": heads,
    "conv_dims": convs,
    "img_size": image,
    "input_size": (3, image, image),
    "num_classes": classes,
    "pos_embed": "none" if size == "xlarge" else "learn",
    "crop_pct": 0.9 if image == 224 else 1.0,
    **variants.CLIP_FACTS,
  }


VARIANTS = {
  f"vitamin_{size}_{image}": _variant(size, image)
  for size, images in (
    ("small", (224,)),
    ("base", (224,)),
    ("large", (224, 256, 336, 384)),
    ("large2", (224, 256, 336, 384)),
    ("xlarge", (256, 336, 384)),
  )
  for image in images
}

_CONV = "patch_embed.backbone."
_OURS = "params/stem/patch_embed/"
_STAGE, _PLACE = _CONV + "stages.{k}.{i}.", _OURS + "stage{k}_{i}/"
RULES = (
  (_CONV + "stem.conv1", _OURS + "conv1", "conv2d"),
  *vit.RULES,
  (_CONV + "stem.norm1", _OURS + "norm1", "affine"),
  (_CONV + "stem.conv2", _OURS + "conv2", "conv2d"),
  (_STAGE + "shortcut.expand", _PLACE + "expand", "conv2d"),
  (_STAGE + "pre_norm", _PLACE + "pre_norm", "affine"),
  (_STAGE + "conv1_1x1", _PLACE + "conv1_1x1", "conv2d"),
  (_STAGE + "conv2_kxk", _PLACE + "conv2_kxk", "conv2d"),
  (_STAGE + "conv3_1x1", _PLACE + "conv3_1x1", "conv2d"),
  (_CONV + "pool.norm", _OURS + "pool_norm", "affine"),
  (_CONV + "pool.proj", _OURS + "pool_proj", "conv2d"),
  *(
    (
      f"blocks.{{b}}.mlp.{name}",
      f"params/stage{{s}}/block{{b}}/mlp/{name}",
      "dense",
    )
    for name in ("w0", "w1", "w2")
  ),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""

_EPS = 1e-6
_gelu = transformer.ACTIVATIONS["gelu"]


def _conv(
  dtype: layers.Dtype,
  name: str,
  width: int,
  **fields: Unpack[layers.WindowFields],
) -> layers.Conv:
  return layers.Conv(width, **fields, use_bias=True, dtype=dtype, name=name)


class Bottleneck(nn.Module):
  """1x1, depthwise 3x3, 1x1, behind a normalisation, and a shortcut.

  Attributes:
    width: of the output.
    stride: 1 or 2; the shortcut is averaged for 2.
    dtype: compute dtype.
  """

  width: int
  stride: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x d"]:
    """Shortcut plus branch."""
    hidden = 4 * self.width
    y = layers.layer_norm(_EPS, self.dtype, "pre_norm")(x)
    y = _gelu(_conv(self.dtype, "conv1_1x1", hidden)(y))
    depthwise: layers.WindowFields = {
      "size": 3,
      "stride": self.stride,
      "groups": hidden,
    }
    y = _gelu(_conv(self.dtype, "conv2_kxk", hidden, **depthwise)(y))
    y = _conv(self.dtype, "conv3_1x1", self.width)(y)
    return self._shortcut(x) + y

  def _shortcut(self, x: Array) -> Array:
    if self.stride == 2:
      around = ((1, 1), (1, 1))
      x = layers.average_pooling(
        x, (3, 3), (2, 2), around, count_include_pad=False
      )
    if x.shape[-1] == self.width:
      return x
    return _conv(self.dtype, "expand", self.width)(x)


class Convolutions(nn.Module):
  """A map of tokens, 16 times smaller than the images.

  Attributes:
    features: width of a token.
    dims: widths of the two stages.
    depths: their numbers of blocks.
    dtype: compute dtype.
  """

  features: int
  dims: tuple[int, int]
  depths: tuple[int, int]
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x d"]:
    """Images to tokens.

    Raises:
      ValueError: the sides of the images are no multiples of 16.
    """
    patches.grid_of(x.shape[1:3], (16, 16))
    x = _conv(self.dtype, "conv1", self.dims[0], size=3, stride=2)(x)
    x = _gelu(layers.layer_norm(_EPS, self.dtype, "norm1")(x))
    x = _conv(self.dtype, "conv2", self.dims[0], size=3)(x)
    for k, (width, depth) in enumerate(
      zip(self.dims, self.depths, strict=True)
    ):
      for i in range(depth):
        stride = 1 if i else 2
        x = Bottleneck(width, stride, self.dtype, name=f"stage{k}_{i}")(x)
    x = layers.layer_norm(_EPS, self.dtype, "pool_norm")(x)
    pool = {"size": 3, "stride": 2}
    return _conv(self.dtype, "pool_proj", self.features, **pool)(x)


class GeGlu(nn.Module):
  """A gated MLP that normalises its input.

  Attributes:
    width: hidden width.
    dtype: compute dtype.
  """

  width: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Parameters `norm`, `w0` (the gate), `w1` and `w2`."""
    dense = {"dtype": self.dtype, "kernel_init": transformer.INIT}
    y = layers.layer_norm(_EPS, self.dtype, "norm")(x)
    gate = layers.Dense(self.width, name="w0", **dense)(y)
    y = _gelu(gate) * layers.Dense(self.width, name="w1", **dense)(y)
    return layers.Dense(x.shape[-1], name="w2", **dense)(y)


class Model(vit.Model):
  """ViTamin; `VARIANTS` lists the named members. See `vit.Model`.

  Attributes:
    global_pool: see `vit.Model`.
    class_token: see `vit.Model`.
    mlp_ratio: see `vit.Model`.
    conv_dims: widths of the two stages of convolutions.
    conv_depths: their numbers of blocks.
    pos_embed: 'learn', or 'none': no position embedding.
  """

  PADS: ClassVar[bool] = False

  global_pool: str = "avg"
  class_token: bool = False
  mlp_ratio: float = 2.0
  conv_dims: tuple[int, ...] = (64, 128)
  conv_depths: tuple[int, ...] = (2, 4)
  pos_embed: str = "learn"

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of("pos_embed", self.pos_embed, ("learn", "none"))
    backbone.positive("conv_dims", self.conv_dims, 2)
    backbone.positive("conv_depths", self.conv_depths, 2)
    backbone.one_of("mlp_layer", self.mlp_layer, ("mlp",))
    backbone.one_of("block_fn", self.block_fn, ("block",))
    backbone.one_of("patch_size", self.patch_size, (16,))

  def embed(self, x: Array) -> Array:
    """See `token_net.TokenNet.embed`."""
    fields = {
      "features": self.embed_dim,
      "dims": self.conv_dims,
      "depths": self.conv_depths,
    }
    embedded = "patches" if self.no_embed_class else "all"
    stem = patches.Stem(
      self.embed_dim,
      (16, 16),
      self.grid,
      self._prefix(),
      "none" if self.pos_embed == "none" else embedded,
      self.norm_eps if self.pre_norm else None,
      self.dtype,
      norm=self.norm_layer,
      embedding=(Convolutions, fields),
      name="stem",
    )
    return stem(x)

  def _block(self, index: int) -> dict[str, Any]:
    fields = super()._block(index)
    attention, _ = fields["kinds"]
    mlp = {"width": int(self.embed_dim * self.mlp_ratio)}
    return {**fields, "mlp": mlp, "kinds": (attention, GeGlu)}
