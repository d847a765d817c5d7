"""Every head: parity, every student, gradients, wrong fields."""

from __future__ import annotations

import json
import pathlib
import re

import goldens as gw
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

from kd_jax import models, resolve, trees
from kd_jax.transfer.heads import base
from kd_jax.types import STAGES

FILE = pathlib.Path(__file__).parents[1] / "golden" / "seg_heads.npz"
# Logits of UPerNet and SegFormer's decoder as transformers 5.24 has them, and
# of Detectron2's Semantic FPN written down in PyTorch; all in float64, with
# weights of `goldens.make_param` and maps of `rng.standard_normal`, NCHW.
GOLDEN = dict(np.load(FILE))
META = json.loads(str(GOLDEN["meta"]))
ORDER = {i: f"stage{i + 1}" for i in range(4)}
RULES = {
  "upernet": (
    (r"psp_modules\.0\.1", "ppm/bin1"),
    (r"psp_modules\.1\.1", "ppm/bin2"),
    (r"psp_modules\.2\.1", "ppm/bin3"),
    (r"psp_modules\.3\.1", "ppm/bin6"),
    (r"lateral_convs\.(\d)", r"lateral_\1"),
    (r"fpn_convs\.(\d)", r"fpn_\1"),
    (r"fpn_bottleneck", "fuse"),
    (r"batch_norm", "bn"),
  ),
  "light": (
    (r"linear_projections\.(\d)\.proj", r"linear_\1"),
    (r"linear_fuse", "fuse/conv"),
    (r"batch_norm", "fuse/bn"),
  ),
  "fpn": (
    (r"lateral\.(\d)", r"lateral_\1"),
    (r"output\.(\d)", r"fpn_\1"),
    (r"scale\.(\d)\.0\.", r"branch_\1.conv0."),
    (r"scale\.(\d)\.1\.", r"branch_\1.norm0."),
    (r"scale\.(\d)\.4\.", r"branch_\1.conv1."),
    (r"scale\.(\d)\.5\.", r"branch_\1.norm1."),
    (r"scale\.(\d)\.8\.", r"branch_\1.conv2."),
    (r"scale\.(\d)\.9\.", r"branch_\1.norm2."),
    (r"predictor", "classifier"),
  ),
}
FIELDS = {
  "upernet": {"channels": 16},
  "light": {"channels": 16, "layer_norm": False},
  "fpn": {"channels": 16, "branch_channels": 8, "num_groups": 4},
}
SMALL = {
  "psp": {"channels": 8},
  "fcn": {"channels": 8},
  "linear": {},
  **FIELDS,
}
SMALL["light"] = {"channels": 16}


def head(name, **fields):
  return resolve.build(
    "transfer.heads", "Head", {"name": name, "num_classes": 5, **fields}
  )


def placed(name, key, value):
  """(path here, array) of a tensor."""
  for old, new in RULES[name]:
    key = re.sub(old, new, key)
  key = re.sub(r"_(\d)", lambda m: f"_{ORDER[int(m[1])]}", key)
  key, _, kind = key.replace(".", "/").rpartition("/")
  if kind.startswith("running_"):
    return f"batch_stats/{key}/{kind.removeprefix('running_')}", value
  if kind == "weight":
    kind = "kernel" if value.ndim > 1 else "scale"
  if kind == "kernel":
    value = value if value.ndim == 4 else value[..., None, None]
    value = value.transpose(2, 3, 1, 0)
  return f"params/{key}/{kind}", value


@pytest.mark.parametrize("name", RULES)
def test_heads_are_those_of_their_authors(name):
  names = META[name]["names"]
  weights = (
    placed(name, key, gw.make_param(key, tuple(shape)))
    for key, shape in names
    if not key.endswith("num_batches_tracked")
  )
  variables = trees.unflatten(dict(weights))
  rng = np.random.Generator(np.random.PCG64(META["seed"]))
  taps = {
    stage: rng.standard_normal((2, c, *size)).transpose(0, 2, 3, 1)
    for stage, c, size in zip(
      base.PYRAMID, META["channels"], META[name]["sizes"], strict=True
    )
  }
  net = head(name, dropout=0.0, **FIELDS[name])
  with jax.enable_x64(True):
    variables = jax.tree.map(np.float64, variables)
    run = jax.jit(net.apply, static_argnames=("train", "mutable"))
    found = run(variables, taps, train=False)
    trained, _ = run(variables, taps, train=True, mutable=("batch_stats",))
  for got, kind in ((found, "eval"), (trained, "train")):
    want = GOLDEN[f"{name}_{kind}"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-10, strict=True)


ONES = [1, 1, 1, 1]
PATCHES = {"img_size": [32, 48], "patch_size": 8, "embed_dim": 16}
VIT = {**PATCHES, "depth": 4, "num_heads": 2}
STUDENTS = {
  "resnet18": {"layers": ONES, "channels": [8, 8, 16, 24]},
  "resnet50_clip": {"layers": ONES, "width_factor": 0.125, "img_size": 64},
  "resnet50_clip_gap": {"layers": ONES, "width_factor": 0.125},
  "resnetv2_50x1_bit": {"layers": ONES, "width_factor": 0.25, "num_groups": 8},
  "regnety_002": {"depth": 7, "w0": 16, "wa": 8.0, "wm": 1.5},
  "mobilenetv1_100": {"channel_multiplier": 0.25},
  "mobilenetv2_035": {},
  "mobilenetv3_small_050": {},
  "mnasnet_small": {},
  "efficientnet_lite0": {"channel_multiplier": 0.25},
  "convnext_atto": {"depths": ONES, "dims": [8, 8, 16, 24]},
  "swin_tiny_patch4_window7_224": {"depths": ONES, "embed_dim": 12},
  "swinv2_tiny_window8_256": {"depths": ONES, "embed_dim": 12},
  "vit_tiny_patch16_224": VIT,
  "deit_tiny_distilled_patch16_224": VIT,
  "beit_base_patch16_224": VIT,
  "eva02_tiny_patch14_224": VIT,
  "mixer_s16_224": {**PATCHES, "num_blocks": 4},
  "hiera_tiny_224": {"stages": ONES, "embed_dim": 8, "img_size": [64, 96]},
  "vitamin_small_224": {**VIT, "img_size": [32, 48], "patch_size": 16},
  "test_coatnet": {"depths": ONES, "img_size": [64, 96]},
  "repvgg_a0": {},
  "repvit_m0_9": {"depth": ONES, "embed_dim": [8, 16, 24, 32]},
  "fastvit_t8": {"layers": ONES, "embed_dims": [8, 16, 32, 64]},
  "mobilenetv4_conv_small_035": {},
  "poolformer_s12": {"depths": ONES, "dims": [8, 16, 24, 32]},
  "densenet121": {"block_config": ONES, "growth_rate": 8},
  "efficientvit_b0": {},
  "hgnetv2_b0": {"stem_chs": [8, 8]},
  "vgg11_bn": {"depths": [1, 1, 1, 1, 1], "head_width": 64},
  "samvit_base_patch16": {**VIT, "global_attn_indexes": [1]},
  "ghostnet_050": {},
  "vit_tiny_r_s16_p8_224": {**VIT, "img_size": [64, 96], "patch_size": 32},
  "tiny_vit_5m_224": {"depths": ONES, "window_sizes": [4, 4, 4, 4]},
  "xcit_nano_12_p16_224": {"depth": 4, "embed_dim": 16},
}
# Their taps are like those of another one.
ALIKE = (
  "resnet50_clip_gap",
  "mobilenetv1_100",
  "mnasnet_small",
  "efficientnet_lite0",
  "swinv2_tiny_window8_256",
  "deit_tiny_distilled_patch16_224",
  "vitamin_small_224",
  "repvit_m0_9",
  "fastvit_t8",
  "mobilenetv4_conv_small_035",
  "poolformer_s12",
  "densenet121",
  "hgnetv2_b0",
  "vgg11_bn",
  "repvgg_a0",
  "ghostnet_050",
  "vit_tiny_r_s16_p8_224",
  "tiny_vit_5m_224",
  "xcit_nano_12_p16_224",
)
CASES = [
  pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ())
  for name in STUDENTS
]
TOKENS = ("vit", "deit", "beit", "eva", "mixer")
FLAT = (*TOKENS, "samvit", "xcit")


def test_every_family_is_here():
  families = set(resolve.names("models", "VARIANTS"))
  assert {models.family_of(name) for name in STUDENTS} == families


@pytest.mark.parametrize("student", CASES)
def test_every_head_fits_every_student_or_says_why_not(student):
  net = models.create_model(student, num_classes=0, **STUDENTS[student])
  specs, _ = zoo.shapes(net)
  tokens = student.startswith(TOKENS)
  assert (len(specs["stage4"].shape) == 3) == tokens
  maps = {k: v for k, v in specs.items() if len(v.shape) in (3, 4)}
  for name in maps if tokens else ():
    grid = (2, *net.grid, specs[name].shape[-1])
    maps[name] = jax.ShapeDtypeStruct(grid, jnp.float32)
  for name, fields in SMALL.items():
    layer = head(name, **fields)
    if student.startswith(FLAT) and name in ("upernet", "fpn"):
      said = "tokens of one size" if tokens else "falling resolution"
      with pytest.raises(ValueError, match=f"{name}.*{said}.*light"):
        layer.reads(specs)
      continue
    layer.reads(specs)
    largest = base.map_of(layer.needs[0], maps).shape[1:3]
    with zoo.zeros():
      logits, _ = jax.eval_shape(
        lambda key, taps, layer=layer: layer.init_with_output(
          key, taps, train=False
        ),
        jax.random.key(0),
        maps,
      )
    assert logits.shape == (2, *largest, 5)


def maps_of(sizes=((12, 10), (6, 5), (3, 3), (2, 2))):
  rng = np.random.default_rng(2)
  return {
    stage: jnp.asarray(rng.normal(size=(3, *size, 4 * k)), jnp.float32)
    for k, (stage, size) in enumerate(zip(base.PYRAMID, sizes, strict=True), 1)
  }


def drawn(layer, taps):
  """Variables without the cost of compiling the initialisation."""
  rng = np.random.default_rng(1)
  with zoo.zeros():
    shapes = jax.eval_shape(
      lambda key: layer.init(key, taps, train=False), jax.random.key(0)
    )
  return jax.tree.map(
    lambda a: jnp.asarray(rng.uniform(-0.5, 1, a.shape), jnp.float32), shapes
  )


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name):
  layer, taps = head(name, **SMALL[name]), maps_of()
  variables = drawn(layer, taps)

  @jax.jit
  def grads(params):
    def loss(params):
      logits, _ = layer.apply(
        {**variables, "params": params},
        taps,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(1)},
      )
      weights = np.random.default_rng(3).normal(size=logits.shape)
      return (logits * weights).sum()

    return jax.grad(loss)(params)

  for path, grad in trees.flatten(grads(variables["params"])).items():
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0, path


def test_layers_start_as_those_of_pytorch():
  layer, taps = head("fcn", tap="stage4", channels=32), maps_of()
  params = jax.jit(lambda key: layer.init(key, taps, train=False))(
    jax.random.key(0)
  )["params"]
  kernel = params["conv1"]["conv"]["kernel"]
  bound = (9 * 16) ** -0.5
  assert 0.98 * bound < np.abs(kernel).max() <= bound
  assert abs(float(kernel.mean())) < 0.05 * bound
  bias = params["classifier"]["bias"]
  assert 0 < np.abs(bias).max() <= 32**-0.5
  assert "bias" not in params["conv1"]["conv"]


def test_dropout_takes_whole_channels_in_training_only():
  layer, taps = head("linear", dropout=0.5, batch_norm=False), maps_of()
  variables, run = (
    drawn(layer, taps),
    jax.jit(layer.apply, static_argnames="train"),
  )
  calm = run(variables, taps, train=False)
  flat = {"stage4": jnp.ones((64, 2, 2, 16))}
  got = run(variables, flat, train=True, rngs={"dropout": jax.random.key(1)})
  # Each image has its own channels, and all its pixels the same.
  assert float(jnp.ptp(got, axis=(1, 2)).max()) == 0
  assert len(np.unique(np.asarray(got)[:, 0, 0, 0])) > 32
  params = variables["params"]["classifier"]
  want = taps["stage4"] @ params["kernel"][0, 0] + params["bias"]
  np.testing.assert_allclose(calm, want, atol=1e-4)


def test_the_last_map():
  assert base.tap_of(base.LAST, {"stage4", "final"}) == "final"
  assert base.tap_of(base.LAST, {"stage4"}) == "stage4"
  assert base.tap_of("stage3", {"stage3", "final"}) == "stage3"


@pytest.mark.parametrize(
  ("name", "fields", "message"),
  [
    ("psp", {"num_classes": 0}, "head.num_classes is 0; it must be at least 1"),
    ("psp", {"dropout": 1.0}, r"head.dropout is 1.0, not in \[0, 1\)"),
    ("psp", {"bins": [1, 1]}, r"head.bins is \(1, 1\); it must hold different"),
    ("upernet", {"bins": []}, r"head.bins is \(\)"),
    ("psp", {"act_layer": "gelu"}, "head.act_layer is 'gelu'; allowed"),
    ("fcn", {"channels": 0}, "head.channels is 0"),
    ("light", {"taps": []}, r"head.taps is \(\); it must name one tap"),
    ("fpn", {"num_groups": 3}, "head.num_groups=3 does not divide"),
    ("psp", {"bin": [1]}, "head 'psp' has no field 'bin'"),
    ("pspp", {}, r"head has no 'pspp'; it has \['psp'"),
  ],
)
def test_wrong_fields(name, fields, message):
  with pytest.raises(ValueError, match=message):
    head(name, **fields)


def test_wrong_students():
  taps = {k: jax.typeof(v) for k, v in maps_of().items()}
  with pytest.raises(ValueError, match="reads 'stage9', which is no map of"):
    head("fcn", tap="stage9").reads(taps)
  flat = {k: jax.typeof(v) for k, v in maps_of([(4, 4)] * 4).items()}
  with pytest.raises(ValueError, match=r"'fpn' needs four maps of falling.*"):
    head("fpn").reads(flat)
  dilated = [(8, 8), (4, 4), (4, 4), (4, 4)]
  specs = {k: jax.typeof(v) for k, v in maps_of(dilated).items()}
  head("upernet").reads(specs)
  assert set(STAGES[1:-1]) == set(specs)
