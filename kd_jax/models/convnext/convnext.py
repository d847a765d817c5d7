"""ConvNeXt (arXiv:2201.03545) and ConvNeXt V2 (2301.00808).

Names, hyper-parameters and feature maps are timm's; 'stem' is the patch
embedding. Layer normalisations have eps 1e-6 unless the variant says else.
Initialisation: all weights N(0, 0.02^2) (timm truncates at +-2, 100 standard
deviations), biases 0, layer scale `ls_init_value`, response normalisation 0.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from absl import logging
from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides
from kd_jax.models.blocks.tokens import transformer
from kd_jax.models.convnext.blocks import NORMAL, Neck, Stage, Stem

_CLIP = {
  "mean": (0.48145466, 0.4578275, 0.40821073),
  "std": (0.26862954, 0.26130258, 0.27577711),
  "crop_pct": 1.0,
}
_A = {"crop_pct": 0.95}
_CONV = {"conv_mlp": True}
_V2 = {"use_grn": True, "ls_init_value": None}
_TIERED = {**_CONV, "stem_type": "overlap_tiered"}
_OLS = {**_CONV, "stem_type": "overlap", **_A}
_HUGE = {"crop_pct": 1.0, "crop_mode": "squash", "input_size": (3, 384, 384)}


def _variant(
  width: int, *depths: int, **more: backbone.FieldValue
) -> dict[str, Any]:
  dims = tuple(width * 2**i for i in range(4))
  return {"depths": depths, "dims": dims, **more}


def _sized(size: int) -> dict[str, Any]:
  return {**_CLIP, "input_size": (3, size, size)}


VARIANTS = {
  "convnext_atto": _variant(40, 2, 2, 6, 2, **_CONV),
  "convnext_atto_ols": _variant(40, 2, 2, 6, 2, **_TIERED),
  "convnext_femto": _variant(48, 2, 2, 6, 2, **_CONV),
  "convnext_femto_ols": _variant(48, 2, 2, 6, 2, **_TIERED),
  "convnext_pico": _variant(64, 2, 2, 6, 2, **_CONV),
  "convnext_pico_ols": _variant(64, 2, 2, 6, 2, **_TIERED, **_A),
  "convnext_nano": _variant(80, 2, 2, 8, 2, **_CONV, **_A),
  "convnext_nano_ols": _variant(80, 2, 2, 8, 2, **_OLS),
  "convnext_tiny": _variant(96, 3, 3, 9, 3, **_A),
  "convnext_tiny_hnf": _variant(
    96, 3, 3, 9, 3, head_norm_first=True, **_CONV, **_A
  ),
  "convnext_small": _variant(96, 3, 3, 27, 3, **_A),
  "convnext_base": _variant(128, 3, 3, 27, 3),
  "convnext_large": _variant(192, 3, 3, 27, 3),
  "convnext_large_mlp": _variant(
    192, 3, 3, 27, 3, head_hidden_size=1536, **_sized(320)
  ),
  "convnext_xlarge": _variant(256, 3, 3, 27, 3),
  "convnext_xxlarge": _variant(384, 3, 4, 30, 3, norm_eps=1e-5, **_sized(256)),
  "convnextv2_atto": _variant(40, 2, 2, 6, 2, **_V2, **_CONV),
  "convnextv2_femto": _variant(48, 2, 2, 6, 2, **_V2, **_CONV),
  "convnextv2_pico": _variant(64, 2, 2, 6, 2, **_V2, **_CONV),
  "convnextv2_nano": _variant(80, 2, 2, 8, 2, **_V2, **_CONV),
  "convnextv2_tiny": _variant(96, 3, 3, 9, 3, **_V2),
  "convnextv2_small": _variant(96, 3, 3, 27, 3, **_V2),
  "convnextv2_base": _variant(128, 3, 3, 27, 3, **_V2),
  "convnextv2_large": _variant(192, 3, 3, 27, 3, **_V2),
  "convnextv2_huge": _variant(352, 3, 3, 27, 3, **_V2, **_HUGE),
}


def _stage_rules(stage: int) -> tuple[tuple[str, str, str], ...]:
  block = f"stages.{stage - 1}.blocks.{{b}}."
  down = f"stages.{stage - 1}.downsample."
  ours = f"params/stage{stage}/"
  inner = ours + "block{b}/"
  mlp = block + "mlp.fc{c}."
  return (
    (block + "conv_dw", inner + "conv_dw", "conv2d"),
    (block + "norm", inner + "norm", "affine"),
    (mlp + "weight", inner + "fc{c}/kernel", "linear"),
    (mlp + "bias", inner + "fc{c}/bias", "copy"),
    (mlp + "weight", inner + "conv_fc{c}/kernel", "pointwise"),
    (mlp + "bias", inner + "conv_fc{c}/bias", "copy"),
    (block + "mlp.grn", inner + "grn", "affine"),
    (block + "gamma", inner + "gamma", "copy"),
    (down + "0", ours + "norm", "affine"),
    (down + "1", ours + "downsample", "conv2d"),
  )


RULES = (
  ("stem.0.weight", "params/stem/conv0/kernel", "conv"),
  ("stem.{c}.bias", "params/stem/conv{c}/bias", "copy"),
  ("stem.{c}.weight", "params/stem/conv{c}/kernel", "conv"),
  ("stem.{c}", "params/stem/norm{c}", "affine"),
  *(rule for stage in (1, 2, 3, 4) for rule in _stage_rules(stage)),
  ("norm_pre", "params/neck/norm_pre", "affine"),
  ("head.norm", "params/neck/norm", "affine"),
  ("head.pre_logits.fc", "params/neck/fc", "dense"),
  ("head.fc", "params/head", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""

_STEMS = ("patch", "overlap", "overlap_tiered")


class Model(backbone.ConvNet):
  """ConvNeXt family; `VARIANTS` lists the named members.

  'final', with the head, is the last map after the last normalisation, which
  without `head_norm_first` is for the pooled vector: the classifier then does
  not read this tap.

  Attributes:
    interpolation: see `Backbone`.
    depths: number of blocks per stage.
    dims: width per stage.
    patch_size: side of the patches of the plain stem: 1, 2 or 4. With 2 the
      first stage halves the map.
    stem_type: 'patch', 'overlap' (two 3x3 convolutions of stride 2), or
      'overlap_tiered' (the first of them has half the width).
    conv_mlp: see `blocks.Block`; concerns files only.
    use_grn: global response normalisation (V2).
    ls_init_value: start of the layer scale; None has none (V2).
    head_norm_first: normalise the last map instead of the pooled vector.
    head_hidden_size: width of a hidden layer of the classifier; 0: none.
    norm_eps: eps of all layer normalisations.
  """

  PARTITION: ClassVar[tuple[tuple[str, int], ...]] = transformer.PARTITION
  POOLS: ClassVar[tuple[str, ...]] = ("avg", "max", "avgmax")

  interpolation: str = "bicubic"
  depths: tuple[int, ...] = (3, 3, 9, 3)
  dims: tuple[int, ...] = (96, 192, 384, 768)
  patch_size: int = 4
  stem_type: str = "patch"
  conv_mlp: bool = False
  use_grn: bool = False
  ls_init_value: float | None = 1e-6
  head_norm_first: bool = False
  head_hidden_size: int = 0
  norm_eps: float = 1e-6

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.positive("depths", self.depths, 4)
    backbone.positive("dims", self.dims, 4)
    backbone.one_of("patch_size", self.patch_size, (1, 2, 4))
    backbone.one_of("stem_type", self.stem_type, _STEMS)
    if self.stem_type != "patch" and self.patch_size != 4:
      raise ValueError(
        f"patch_size={self.patch_size} has no effect: stem_type="
        f"{self.stem_type!r} has a stride of 4"
      )
    scale = self.ls_init_value
    if scale is not None and not isinstance(scale, numbers.Real):
      raise ValueError(f"ls_init_value is {scale!r}; a number or None")
    if self.head_hidden_size < 0 or not self.norm_eps > 0:
      raise ValueError(
        f"head_hidden_size={self.head_hidden_size} and norm_eps="
        f"{self.norm_eps}: neither may be negative, nor norm_eps 0"
      )
    if self.head_norm_first and self.head_hidden_size:
      raise ValueError("head_hidden_size needs head_norm_first=False")

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.head_hidden_size or self.dims[-1]

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' and 'final' come with 'head'."""
    if stage == "stem":
      width = self.dims[0]
      first = width
      if self.stem_type == "overlap_tiered":
        first = strides.divisible(width // 2)
      widths = (width,) if self.stem_type == "patch" else (first, width)
      stem = Stem(
        self.patch_size, widths, self.norm_eps, self.dtype, name=stage
      )
      x = stem(x)
      return x, {"stem": x}
    if stage == "head":
      return self._head(x)
    index = int(stage[-1]) - 1
    step = self._steps()[index]
    down = index > 0 or step.stride > 1
    blocks = self._blocks(index)
    x = Stage(self.dims[index], step, down, blocks, name=stage)(x, train=train)
    return x, {stage: x}

  def _head(self, x: Array) -> tuple[Array, dict[str, Array]]:
    norm = "norm_pre" if self.head_norm_first else "norm"
    neck = Neck(
      self.head_hidden_size, norm, self.norm_eps, self.dtype, name="neck"
    )
    final = neck(x, norm_only=True)
    if self.head_norm_first:
      pooled = layers.global_pool(final, self.global_pool)
    else:
      pooled = neck(layers.global_pool(x, self.global_pool))
    logits = pooled
    if self.num_classes:
      head = layers.Dense(
        self.num_classes, dtype=self.dtype, kernel_init=NORMAL, name="head"
      )
      logits = head(pooled)
    taps = {"final": final, "feature": pooled, "pooled": pooled}
    return logits, {**taps, "logits": logits}

  def _steps(self) -> list[strides.Step]:
    first = 2 if self.patch_size == 2 else 1
    return strides.steps(self.output_stride, self.patch_size, (first, 2, 2, 2))

  def _blocks(self, index: int) -> tuple[dict[str, Any], ...]:
    """The fields of every block of a stage."""
    rates = strides.drop_rates(self.drop_path_rate, self.depths)[index]
    return tuple(
      {
        "dilation": self._steps()[index].dilation,
        "conv_mlp": self.conv_mlp,
        "use_grn": self.use_grn,
        "ls_init_value": self.ls_init_value,
        "drop_path": rate,
        "eps": self.norm_eps,
        "dtype": self.dtype,
      }
      for rate in rates
    )


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """Facebook's and OpenCLIP's names as timm's.

  Files of the masked pre-training of V2 lack the last normalisation: it
  starts as the identity, with a warning, as in timm.

  Args:
    state_dict: tensors of a file.
    shapes: {timm name: shape} of the model.
  """
  found = dict(state_dict)
  if not {"head.norm.weight", "norm_pre.weight"} & set(found):
    found = _from_openclip(found) or _from_facebook(found, shapes)
  norm = {"head.norm.weight", "head.norm.bias"} & set(shapes) - set(found)
  if len(norm) == 2 and not any(k.startswith("head.") for k in found):
    logging.warning("the file lacks head.norm, which starts as the identity")
    width = shapes["head.norm.weight"]
    found["head.norm.weight"] = np.ones(width, np.float32)
    found["head.norm.bias"] = np.zeros(width, np.float32)
  return found


def _from_openclip(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """What lies under 'visual.'; empty if there is nothing."""
  trunk = "visual.trunk."
  renamed = {
    k.removeprefix(trunk): v for k, v in found.items() if k.startswith(trunk)
  }
  heads = {
    "visual.head.proj.weight": "head.fc.weight",
    "visual.head.mlp.fc1.weight": "head.pre_logits.fc.weight",
    "visual.head.mlp.fc1.bias": "head.pre_logits.fc.bias",
    "visual.head.mlp.fc2.weight": "head.fc.weight",
  }
  renamed.update({new: found[k] for k, new in heads.items() if k in found})
  # The projections into the joint space have no bias.
  if "head.fc.weight" in renamed:
    rows = len(renamed["head.fc.weight"])
    renamed["head.fc.bias"] = np.zeros(rows, np.float32)
  return renamed


def _from_facebook(
  found: dict[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  renamed = {}
  for name, value in found.items():
    new = _facebook_name(name)
    if "grn" in new:
      value = value.reshape(-1)
    if value.ndim == 2 and new in shapes:
      value = value.reshape(shapes[new]) if len(shapes[new]) == 4 else value
    renamed[new] = value
  return renamed


def _facebook_name(name: str) -> str:
  for pattern, new in (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
    (r"\.grn\.gamma$", ".mlp.grn.weight"),
    (r"\.grn\.beta$", ".mlp.grn.bias"),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
    (r"^norm\.", "head.norm."),
  ):
    name = re.sub(pattern, new, name)
  return name
