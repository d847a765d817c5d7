"""Outputs of timm in float64, kept as a few numbers per tap.

The weights are functions of name and shape, as in `goldens`. A file
golden/timm/prints_FAMILY.npz has 'cases', JSON of [architecture, fields,
height, width], and '<case>_<tap>'. tests/live/make_prints.py writes the files,
and golden/timm/students.json: parameters and preprocessing of every variant.
"""

from __future__ import annotations

import json

import convzoo
import goldens as gw
import jax
import numpy as np
import zoo

from kd_jax import convert, models
from kd_jax.convert import rules

CLASSES = 5
_NUMBERS = 96


def load(family):
  """(cases, arrays) of the file of a family."""
  arrays = dict(np.load(gw.FOLDER / f"prints_{family}.npz"))
  return json.loads(str(arrays.pop("cases"))), arrays


def facts(family):
  """{variant: {"parameters": in timm, field: of its default weights}}."""
  return json.loads((gw.FOLDER / "students.json").read_text())[family]


def check_preprocessing(family):
  """The fields of every variant that say how images are prepared."""
  for name, known in facts(family).items():
    model = models.create_model(name)
    for field in {*known} - {"parameters"}:
      want = known[field]
      want = tuple(want) if isinstance(want, list) else want
      assert getattr(model, field) == want, (name, field)


def check_counts(family, block):
  """Every variant of a family has as many parameters as in timm."""
  counts = {name: known["parameters"] for name, known in facts(family).items()}
  convzoo.check_counts(family, counts, block)


def images(height, width):
  """(2, height, width, 3), standard normal."""
  rng = np.random.Generator(np.random.PCG64(0))
  return rng.standard_normal((2, 3, height, width)).transpose(0, 2, 3, 1)


def of(tap):
  """At most 2 x 96 numbers that depend on every channel.

  Args:
    tap: (n, c) or (n, h, w, c).
  """
  tap = np.asarray(tap)
  rng = np.random.Generator(np.random.PCG64(tap.shape[-1]))
  weights = rng.standard_normal((tap.shape[-1], 2))
  mixed = tap @ (weights / np.sqrt(tap.shape[-1]))
  mixed = mixed.reshape(-1, 2)
  return mixed[:: -(-len(mixed) // _NUMBERS)]


def state_dict(shapes):
  """{name: array} from {name: shape}."""
  return {k: gw.make_param(k, shape) for k, shape in shapes.items()}


def variables_of(model):
  """The variables of those weights."""
  with zoo.zeros():
    shapes = {k: e.shape for k, e in rules.entries(model).items()}
    return convert.from_timm(model, state_dict(shapes))


def check(family, index, dtype, near):
  """All stored taps of a case.

  Args:
    family: the file.
    index: of the case.
    dtype: 'float32' or 'float64'.
    near: largest difference, relative to the largest number of a tap.
  """
  cases, arrays = load(family)
  arch, fields, *size = cases[index]
  with jax.enable_x64(dtype == "float64"), convzoo.native_depthwise():
    model = models.create_model(arch, num_classes=CLASSES, **zoo.RAW, **fields)
    variables = variables_of(model)
    variables = jax.tree.map(lambda a: a.astype(dtype), variables)
    run = jax.jit(model.apply)
    taps = jax.device_get(run(variables, images(*size).astype(dtype)))
  assert taps["pooled"].shape[1] == model.num_features
  prefix = f"{index}_"
  wanted = {
    k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)
  }
  assert {"stage1", "stage2", "stage3", "stage4", "logits"} <= set(wanted)
  for tap, want in wanted.items():
    assert taps[tap].dtype == dtype
    got = taps[tap].astype(np.float64)
    if got.ndim == 3:  # tokens
      got = got[:, model.num_prefix_tokens :]
    got = of(got)
    assert got.shape == want.shape and np.ptp(want) > 0, tap
    gap = np.abs(got - want).max() / np.abs(want).max()
    assert gap < near, (tap, gap)
