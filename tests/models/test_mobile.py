"""MobileNetV1 to V3, MnasNet and EfficientNet: families of `models.mobile`."""

from __future__ import annotations

import functools
import json
import math

import goldens as gw
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

from kd_jax import convert, models, resolve
from kd_jax.convert import rules
from kd_jax.models.mobile import mbconv

# Of timm 1.0.31.
COUNTS = {
  "efficientnet": {
    "tinynet_a": 6_187_972,
    "tinynet_b": 3_730_562,
    "tinynet_c": 2_457_234,
    "tinynet_d": 2_338_446,
    "tinynet_e": 2_042_972,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
    "efficientnet_b8": 87_413_142,
    "efficientnet_el": 10_589_712,
    "efficientnet_em": 6_899_496,
    "efficientnet_es": 5_438_392,
    "efficientnet_l2": 480_309_308,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
    "efficientnetv2_l": 118_515_272,
    "efficientnetv2_m": 54_139_356,
    "efficientnetv2_rw_m": 53_236_442,
    "efficientnetv2_rw_s": 23_941_296,
    "efficientnetv2_rw_t": 13_649_388,
    "efficientnetv2_s": 21_458_488,
    "efficientnetv2_xl": 208_119_808,
    "test_efficientnet": 356_196,
    "tf_efficientnet_b0": 5_288_548,
    "tf_efficientnet_b1": 7_794_184,
    "tf_efficientnet_b2": 9_109_994,
    "tf_efficientnet_b3": 12_233_232,
    "tf_efficientnet_b4": 19_341_616,
    "tf_efficientnet_b5": 30_389_784,
    "tf_efficientnet_b6": 43_040_704,
    "tf_efficientnet_b7": 66_347_960,
    "tf_efficientnet_b8": 87_413_142,
    "tf_efficientnet_el": 10_589_712,
    "tf_efficientnet_em": 6_899_496,
    "tf_efficientnet_es": 5_438_392,
    "tf_efficientnet_l2": 480_309_308,
    "tf_efficientnet_lite0": 4_652_008,
    "tf_efficientnet_lite1": 5_416_680,
    "tf_efficientnet_lite2": 6_092_072,
    "tf_efficientnet_lite3": 8_197_096,
    "tf_efficientnet_lite4": 13_006_568,
    "tf_efficientnetv2_b0": 7_139_704,
    "tf_efficientnetv2_b1": 8_141_052,
    "tf_efficientnetv2_b2": 10_096_086,
    "tf_efficientnetv2_b3": 14_358_406,
    "tf_efficientnetv2_l": 118_515_272,
    "tf_efficientnetv2_m": 54_139_356,
    "tf_efficientnetv2_s": 21_458_488,
    "tf_efficientnetv2_xl": 208_119_808,
  },
  "mnasnet": {
    "fbnetc_100": 5_572_200,
    "mnasnet_050": 2_218_512,
    "mnasnet_075": 3_170_208,
    "mnasnet_100": 4_383_312,
    "mnasnet_140": 7_115_728,
    "mnasnet_small": 2_030_264,
    "semnasnet_050": 2_082_006,
    "semnasnet_075": 2_912_278,
    "semnasnet_100": 3_887_038,
    "semnasnet_140": 6_105_992,
    "spnasnet_100": 4_421_616,
  },
  "mobilenetv3": {
    "fbnetv3_b": 8_598_464,
    "fbnetv3_d": 10_306_272,
    "fbnetv3_g": 16_623_888,
    "lcnet_035": 1_644_370,
    "lcnet_050": 1_880_856,
    "lcnet_075": 2_358_288,
    "lcnet_100": 2_953_800,
    "lcnet_150": 4_501_112,
    "mobilenetv3_large_075": 3_993_528,
    "mobilenetv3_large_100": 5_483_032,
    "mobilenetv3_large_150d": 14_622_320,
    "mobilenetv3_rw": 5_479_918,
    "mobilenetv3_small_050": 1_593_224,
    "mobilenetv3_small_075": 2_041_872,
    "mobilenetv3_small_100": 2_542_856,
    "tf_mobilenetv3_large_075": 3_993_528,
    "tf_mobilenetv3_large_100": 5_483_032,
    "tf_mobilenetv3_large_minimal_100": 3_924_288,
    "tf_mobilenetv3_small_075": 2_041_872,
    "tf_mobilenetv3_small_100": 2_542_856,
    "tf_mobilenetv3_small_minimal_100": 2_044_736,
  },
  "mobilenetv1": {
    "mobilenetv1_100": 4_231_976,
    "mobilenetv1_100h": 5_282_600,
    "mobilenetv1_125": 6_270_840,
  },
  "mobilenet": {
    "mobilenetv2_035": 1_677_128,
    "mobilenetv2_050": 1_968_680,
    "mobilenetv2_075": 2_636_424,
    "mobilenetv2_100": 3_504_872,
    "mobilenetv2_110d": 4_516_520,
    "mobilenetv2_120d": 5_831_144,
    "mobilenetv2_140": 6_108_776,
  },
}
SMALL = (
  "cn_r1_k3_s1_c8_skip",
  "er_r1_k3_s2_e2_c8 er_r1_k3_s1_e2_c8",
  "ir_r1_k3_s2_e2_c8_se0.25",
  "ds_r1_k3_s2_c16_nsw",
  "ir_r1_k5_s2_e2_c16_se0.25 cn_r1_k1_s1_c24",
)
TINY = {
  "efficientnet": ("test_efficientnet", {}),
  "mobilenetv3": (
    "mobilenetv3_large_100",
    {"arch_def": SMALL, "head_width": 32, "global_pool": "catavgmax"},
  ),
  "mobilenetv1": (
    "mobilenetv1_100",
    {"arch_def": ["dsa_r1_k3_s1_c8", *["dsa_r1_k3_s2_c16"] * 4]},
  ),
}
OPTIONS = dict(np.load(gw.FOLDER / "mobile.npz"))
CASES = json.loads(str(OPTIONS["cases"]))


@pytest.mark.parametrize(
  "case, final",
  [
    pytest.param("mobilenetv1_100", "stage4", marks=pytest.mark.slow),
    ("mobilenetv3_large_100", "stage4"),
    pytest.param("efficientnet_b0", "final", marks=pytest.mark.slow),
    pytest.param("tf_efficientnet_b1", "final", marks=pytest.mark.slow),
    pytest.param("tf_efficientnet_b1__odd", "final", marks=pytest.mark.slow),
  ],
)
def test_matches_timm(case, final):
  _, _, taps = zoo.check_golden(case, zoo.CONV_FIELDS, lambda t: t[final])
  if final == "final":
    assert float(taps["feature"].min()) < float(taps["final"].min())


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda i: CASES[i][0])
def test_every_kind_of_block_matches_timm_in_float64(index):
  name, fields = CASES[index]
  model = models.create_model(name, num_classes=5, **zoo.RAW, **fields)
  with zoo.zeros():
    state_dict = {
      k: gw.make_param(k, e.shape) for k, e in rules.entries(model).items()
    }
    variables = convert.from_timm(model, state_dict)
  x = np.random.Generator(np.random.PCG64(0)).standard_normal((2, 3, 75, 58))
  with jax.enable_x64(True):
    variables = jax.tree.map(lambda a: a.astype(np.float64), variables)
    run = jax.jit(model.apply)
    taps = jax.device_get(run(variables, x.transpose(0, 2, 3, 1)))
  near = {"rtol": 1e-11, "atol": 1e-13}
  final = taps.get("final", taps["stage4"])
  got = {"features": final, "stage1": taps["stage1"], "stage3": taps["stage3"]}
  for field, value in got.items():
    want = OPTIONS[f"{index}_{field}"]
    np.testing.assert_allclose(value.mean(-1), want, **near)
  np.testing.assert_allclose(taps["logits"], OPTIONS[f"{index}_logits"], **near)
  assert taps["pooled"].shape[1] == model.num_features


def _size(tree):
  return sum(math.prod(a.shape) for a in jax.tree.leaves(tree))


def _count(model):
  """Number of parameters; tracing every block of every member takes minutes."""
  blocks = [fields for stage in model.plan().values() for _, fields in stage]
  width = model.fix_stem_head and model.stem_size
  width = width or model.scaled(model.stem_size)
  total = 3 * 3 * 3 * width + 2 * width
  for fields in blocks:
    for step in mbconv.Block(**fields, style=model.style).steps():
      conv = step.fields
      window = conv.get("size", 1) ** 2 * width // conv.get("groups", 1)
      width = conv["features"]
      total += (window + 2) * width
    hidden = fields["se_width"]
    total += 2 * hidden * fields["width"] + hidden
    total += fields["width"] if hidden else 0
  x = jax.ShapeDtypeStruct((1, 2, 2, width), jnp.float32)
  end = jax.eval_shape(
    functools.partial(model.init, begin="head"), jax.random.key(0), x
  )
  return total + _size(end["params"])


@pytest.mark.parametrize("family", COUNTS)
def test_parameter_counts(family):
  names = resolve.symbol("models", family, "VARIANTS")
  assert sorted(COUNTS[family]) == sorted(names)
  for name, want in COUNTS[family].items():
    assert _count(models.create_model(name)) == want, name


@pytest.mark.parametrize("family", TINY)
def test_preprocessing(family):
  zoo.check_preprocessing(family)


@pytest.fixture(scope="module", params=TINY)
def tiny(request):
  name, fields = TINY[request.param]
  return zoo.Tiny(name, **fields)


def test_names(tiny):
  tiny.check_names()
  assert _count(tiny.model) == _size(tiny.variables["params"])


def test_chained_stages_equal_the_whole(tiny):
  tiny.check_chain()


def test_every_parameter_gets_a_gradient(tiny):
  tiny.check_gradients()


def test_bfloat16(tiny):
  tiny.check_bfloat16(0.05)


def test_feature_lacks_the_last_activation(tiny):
  act = mbconv.ACTIVATIONS[tiny.model.act_layer]
  taps = tiny.taps
  feature, pooled = np.asarray(taps["feature"]), np.asarray(taps["pooled"])
  assert feature.min() < 0
  if "mobilenetv3" in tiny.name:
    np.testing.assert_allclose(pooled, act(feature), rtol=1e-5, atol=1e-6)
  else:
    assert np.abs(pooled - feature).max() > 1e-3


def test_saved_and_loaded_again(tmp_path):
  fields = {
    "arch_def": list(SMALL),
    "depth_multiplier": (1.0, 2.0, 1.0, 1.0, 1.0),
    "head_width": 16,
    "pad_type": "same",
    "bn_eps": 2e-3,
    "num_classes": 3,
    "global_pool": "max",
  }
  model = models.create_model("efficientnet_b0", **fields)
  variables = zoo.drawn(model)
  convert.save_timm(model, variables, tmp_path, name="efficientnet_b0")
  again, loaded = convert.load_pretrained("efficientnet_b0", tmp_path)
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_initialisation():
  model = models.create_model("efficientnet_lite0", num_classes=100)
  fields = model.plan()["stage3"][1][1]
  block = mbconv.Block(**fields, style=model.style)
  init = jax.jit(block.init, static_argnames="train")
  x = jnp.ones((1, 1, 1, 80))
  params = init(jax.random.key(0), x, train=False)["params"]
  for name, fan_out in (("conv_pw", 480), ("conv_dw", 9), ("conv_pwl", 80)):
    std = float(params[name]["kernel"].std())
    assert std == pytest.approx(math.sqrt(2 / fan_out), rel=0.03)
  kernel = model.head_inits()["kernel_init"](jax.random.key(0), (1280, 100))
  assert float(jnp.abs(kernel).max()) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize(
  "name, fields, message",
  [
    ("efficientnet_b0", {"act_layer": "tanh"}, "act_layer is 'tanh'; allowed"),
    ("efficientnet_b0", {"pad_type": "valid"}, "pad_type is 'valid'; allowed"),
    ("efficientnet_b0", {"bn_eps": 0.0}, "bn_eps is 0.0; it must be > 0"),
    ("efficientnet_b0", {"round_limit": 2.0}, r"2.0, not in \[0, 1\]"),
    ("efficientnet_b0", {"head_width": 0}, "head_width is 0"),
    ("mnasnet_100", {"head_width": 0}, "head_width is 0"),
    ("mobilenetv3_rw", {"head_width": 0}, "head_width is 0"),
    ("efficientnet_b0", {"depth_multiplier": "2"}, "depth_multiplier is '2'"),
    (
      "efficientnet_b0",
      {"depth_multiplier": [1.0, 2.0]},
      "depth_multiplier has 2 numbers; arch_def has 7 groups",
    ),
    (
      "efficientnet_b0",
      {"depth_multiplier": [1.0] * 6 + [-1.0]},
      "depth_multiplier is -1.0",
    ),
    (
      "mnasnet_100",
      {"arch_def": ["ds_r1_k4_s1_c16"]},
      "arch_def has 'ds_r1_k4_s1_c16'; a block is KIND_rR_kK",
    ),
    ("mnasnet_100", {"arch_def": [""]}, "arch_def has ''; a block is"),
    (
      "mnasnet_100",
      {"arch_def": ["ds_r1_k3_s2_c16"]},
      "1 groups of stride 2; it must have 4",
    ),
    (
      "mobilenetv1_100",
      {"arch_def": ["dsa_r1_k3_s2_c8"] * 3 + ["ir_r1_k3_s2_e2_c8"]},
      "ends with 'ir_r1_k3_s2_e2_c8', without an activation",
    ),
    (
      "lcnet_050",
      {"se_act_layer": "tanh"},
      "se_act_layer is 'tanh'; allowed",
    ),
  ],
)
def test_wrong_options(name, fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model(name, **fields)
