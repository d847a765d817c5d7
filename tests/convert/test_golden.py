"""Models with converted weights, against outputs of timm."""

from __future__ import annotations

import json

import goldens as gw
import jax
import numpy as np
import pytest

from kd_jax import convert, models
from kd_jax.convert import rules

CASES = (
  "resnet18",
  "resnet18__odd",
  "resnet50",
  "mobilenetv2_100",
  # Deeper or wider; small members with groups are in models/test_resnet.py.
  pytest.param("resnext50_32x4d", marks=pytest.mark.slow),
  pytest.param("resnet101", marks=pytest.mark.slow),
  pytest.param("wide_resnet50_2", marks=pytest.mark.slow),
)
RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
FIELDS = {"logits": "logits", "pre_logits": "pooled"} | {
  "preact_pooled": "feature",
  "stage_0": "stem",
  **{f"stage_{k}": f"stage{k}" for k in (1, 2, 3, 4)},
}
OPTIONS = dict(np.load(gw.FOLDER / "options.npz"))
OPTION_CASES = json.loads(str(OPTIONS["cases"]))
LAST = len(OPTION_CASES) - 1


@pytest.mark.parametrize("case", CASES)
def test_matches_timm(case):
  meta, arrays = gw.load(case)
  model = models.create_model(meta["arch"], **RAW)
  state_dict = gw.make_state_dict(meta)
  variables = convert.from_timm(model, state_dict)
  taps = jax.jit(model.apply)(variables, gw.make_input(meta))
  for field, tap in FIELDS.items():
    gw.check(meta, arrays, field, taps[tap])
  gw.check(meta, arrays, "features", taps.get("final", taps["stage4"]))
  assert taps["pooled"].shape[1] == model.num_features
  _check_round_trip(model, variables, state_dict)


def _check_round_trip(model, variables, state_dict):
  back = convert.to_timm(model, variables)
  assert set(back) == set(state_dict)
  for name, array in state_dict.items():
    assert back[name].dtype == array.dtype, name
    np.testing.assert_array_equal(back[name], array, strict=True)


def _float64(index):
  name, fields = OPTION_CASES[index]
  model = models.create_model(name, num_classes=5, **RAW, **fields)
  state_dict = {
    k: gw.make_param(k, e.shape) for k, e in rules.entries(model).items()
  }
  variables = convert.from_timm(model, state_dict)
  variables = jax.tree.map(lambda a: a.astype(np.float64), variables)
  x = np.random.Generator(np.random.PCG64(0)).standard_normal((2, 3, 64, 48))
  return model, variables, x.transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
  "index", range(LAST), ids=lambda i: str(OPTION_CASES[i])
)
def test_options_match_timm_in_float64(index):
  with jax.enable_x64(True):
    model, variables, x = _float64(index)
    taps = jax.device_get(jax.jit(model.apply)(variables, x))
  assert taps["logits"].dtype == np.float64
  final = taps.get("final", taps["stage4"]).mean(-1)
  np.testing.assert_allclose(final, OPTIONS[f"{index}_features"], rtol=1e-12)
  near = {"rtol": 1e-11, "atol": 1e-13}
  np.testing.assert_allclose(taps["logits"], OPTIONS[f"{index}_logits"], **near)
  assert taps["pooled"].shape[1] == model.num_features


def test_training_step_matches_pytorch_in_float64():
  def loss(params, stats):
    taps, new = model.apply(
      {"params": params, **stats}, x, train=True, mutable=["batch_stats"]
    )
    return (taps["logits"] ** 2).mean(), (taps["logits"], new)

  with jax.enable_x64(True):
    model, variables, x = _float64(LAST)
    params = variables.pop("params")
    step = jax.jit(jax.grad(loss, has_aux=True))
    grads, (logits, new) = jax.device_get(step(params, variables))
  near = {"rtol": 1e-9, "atol": 1e-11}
  wanted = {k: OPTIONS[f"{LAST}_train_{k}"] for k in ("logits", "grad", "var")}
  np.testing.assert_allclose(logits, wanted["logits"], **near)
  grad = grads["stem"]["conv1"]["kernel"].transpose(3, 2, 0, 1)
  np.testing.assert_allclose(grad, wanted["grad"], **near)
  got = new["batch_stats"]["stage4"]["block0"]["bn2"]["var"]
  np.testing.assert_allclose(got, wanted["var"], **near)
