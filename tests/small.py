"""Small members of families against timm: a few numbers per tap.

A file golden/timm/small_FAMILY.npz has '<case>_<tap>', outputs of timm in
float64, and 'cases', JSON of
  case    [architecture, fields, [height, width] of the images, scale of
          matrices and kernels], see `small_cases`
  shapes  {name: shape} of timm's tensors; the weights are functions of these
  noise   {tap: error of timm's float32, relative to the largest number}
and facts_FAMILY.json the parameters and the preprocessing of every variant.
tests/live/make_small.py writes both.
"""

from __future__ import annotations

import functools
import json

import convzoo
import counts
import goldens as gw
import jax
import numpy as np
import pytest
import zoo

from kd_jax import convert, models, resolve

CLASSES = 5
_NUMBERS = 96
_LEAST_NOISE = 3e-5


@functools.cache
def load(family):
  """[(facts, {tap: numbers})] of the cases of a file."""
  arrays = dict(np.load(gw.FOLDER / f"small_{family}.npz"))
  found = [(facts, {}) for facts in json.loads(str(arrays.pop("cases")))]
  for key, value in arrays.items():
    index, _, tap = key.partition("_")
    found[int(index)][1][tap] = value
  return found


def names(family):
  """Architectures of the cases of a file."""
  return [facts["case"][0] for facts, _ in load(family)]


def params(family, quick=()):
  """One pytest parameter per case; those not in `quick` are slow.

  Args:
    family: the file.
    quick: indices, or names of architectures.
  """
  return [
    pytest.param(
      family,
      i,
      id=f"{name}-{i}",
      marks=() if i in quick or name in quick else pytest.mark.slow,
    )
    for i, name in enumerate(names(family))
  ]


def images(height, width):
  """(2, height, width, 3), standard normal."""
  rng = np.random.Generator(np.random.PCG64(0))
  return rng.standard_normal((2, 3, height, width)).transpose(0, 2, 3, 1)


def state_dict(shapes, scale=1.0):
  """{name: array} from {name: shape}; matrices and kernels are scaled."""
  return {
    name: gw.make_param(name, tuple(shape), scale=_scale(name, scale))
    for name, shape in shapes.items()
  }


def _scale(name, scale):
  return scale if name.endswith(".weight") and "norm" not in name else 1.0


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


def check(family, index, dtype="float64", near=1e-9):
  """All stored taps of a case, and every tensor under timm's name.

  Args:
    family: the file.
    index: of the case.
    dtype: of weights, images and outputs.
    near: in float64: largest difference, relative to the largest number of a
      tap. In float32 it is ten times what timm itself is off.
  """
  facts, wanted = load(family)[index]
  name, fields, size, scale = facts["case"]
  tensors = state_dict(facts["shapes"], scale)
  with jax.enable_x64(dtype == "float64"), convzoo.native_depthwise():
    fields = zoo.tuples(fields)
    model = models.create_model(name, num_classes=CLASSES, **zoo.RAW, **fields)
    with zoo.zeros():
      variables = convert.from_timm(model, tensors)
    variables = jax.tree.map(lambda a: a.astype(dtype), variables)
    run = jax.jit(model.apply)
    taps = jax.device_get(run(variables, images(*size).astype(dtype)))
  assert set(convert.to_timm(model, variables)) == set(tensors)
  assert taps["pooled"].shape[1] == model.num_features
  assert {"pooled", "logits"} < set(wanted)
  for tap, want in wanted.items():
    assert taps[tap].dtype == dtype
    got = of(_as_map(model, taps[tap]).astype(np.float64))
    assert got.shape == want.shape and np.ptp(want) > 0, tap
    gap = np.abs(got - want).max() / np.abs(want).max()
    noise = max(10 * facts["noise"][tap], _LEAST_NOISE)
    assert gap < (near if dtype == "float64" else noise), (name, tap, gap)


def _as_map(model, tap):
  """Tokens without the prefix, of which timm makes maps."""
  return tap[:, model.num_prefix_tokens :] if tap.ndim == 3 else tap


@functools.cache
def facts(family):
  """{variant: {"parameters": in timm, field: of its default weights}}."""
  known = json.loads((gw.FOLDER / f"facts_{family}.json").read_text())
  assert sorted(known) == sorted(resolve.symbol("models", family, "VARIANTS"))
  return known


def check_preprocessing(family):
  """The fields of every variant that say how images are prepared."""
  wrong = []
  for name, known in facts(family).items():
    model = models.create_model(name)
    for field in known.keys() - {"parameters"}:
      got, want = getattr(model, field), zoo.tuples(known[field])
      if got != want:
        wrong.append((name, field, got, want))
  assert not wrong, wrong


def check_counts(family, every=1):
  """As `counts.check`."""
  known = facts(family)
  found = {name: v["parameters"] for name, v in known.items()}
  counts.check(family, found, every)
