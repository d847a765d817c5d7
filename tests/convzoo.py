"""Checks that the convolutional families share, beside those in `zoo`."""

from __future__ import annotations

import json
from unittest import mock

import goldens as gw
import jax
import numpy as np
import zoo

from kd_jax import convert, models
from kd_jax.convert import rules
from kd_jax.models.blocks import convolutions, depthwise

# Outputs of timm 1.0.31 in float64 for small members with unusual options;
# '<case>_map' is forward_features, maps are means over channels and columns.
OPTIONS = dict(np.load(gw.FOLDER / "options_conv.npz"))
CASES = json.loads(str(OPTIONS["cases"]))


def native_depthwise():
  """A context in which large depthwise windows compile quickly."""
  return mock.patch.object(convolutions, "depthwise", depthwise.native)


def option_cases(*families):
  """Indices and readable ids of the stored cases."""
  return [
    (i, f"{arch}-{i}")
    for i, (family, arch, *_) in enumerate(CASES)
    if family in families
  ]


def check_options(
  index,
  last=lambda taps: taps.get("final", taps["stage4"]),
  options=OPTIONS,
):
  """All taps in float64, parameter for parameter as in timm.

  Args:
    index: of the case.
    last: taps -> timm's forward_features.
    options: the file with the case.
  """
  _, arch, fields, size = json.loads(str(options["cases"]))[index]
  rng = np.random.Generator(np.random.PCG64(0))
  x = rng.standard_normal((2, 3, *size)).transpose(0, 2, 3, 1)
  with jax.enable_x64(True), native_depthwise():
    model = models.create_model(arch, num_classes=5, **zoo.RAW, **fields)
    with zoo.zeros():
      state_dict = {
        k: gw.make_param(k, e.shape) for k, e in rules.entries(model).items()
      }
      variables = convert.from_timm(model, state_dict)
    variables = jax.tree.map(lambda a: a.astype(np.float64), variables)
    taps = dict(jax.device_get(jax.jit(model.apply)(variables, x)))
  taps["map"] = last(taps)
  assert taps["pooled"].shape[1] == model.num_features
  wanted = {
    k.partition("_")[2]: v
    for k, v in options.items()
    if k.startswith(f"{index}_")
  }
  assert {"stage1", "stage4", "map", "pooled", "logits"} <= set(wanted)
  for name, want in wanted.items():
    got = taps[name]
    assert got.dtype == np.float64
    got = got.mean((2, 3)) if got.ndim == 4 else got
    np.testing.assert_allclose(
      got, want, rtol=1e-9, atol=1e-11, err_msg=name, strict=True
    )
