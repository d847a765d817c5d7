"""What codecs keep of a teacher, in how many bytes, and what they lose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import resolve
from kd_jax.align import basis as basis_lib
from kd_jax.align import pts, svd
from kd_jax.codecs import aligned, base, full, hard, marginal, raw
from kd_jax.data.bank import Header
from kd_jax.data.sources import digits
from kd_jax.teachers import random

GEOMETRY = ((7,), "int16")
WIDTHS = {"feature": (2048,), "logits": (1000,)}
DTYPES = ("float16", "int8", "float8_e4m3fn")

# What the paper's files take without their 17 bytes of geometry; features as
# the same count of values would.
BYTES = [
  (raw.Codec(), 8192),
  (raw.Codec(tap="logits", dtype="float16"), 2000),
  (full.Codec(), 4000),
  (full.Codec(dtype="float16"), 2000),
  (hard.Codec(), 2),
  (marginal.Codec(top=1), 4),
  (marginal.Codec(top=5), 20),
  (marginal.Codec(top=10, recover="renorm"), 40),
  (marginal.Codec(top=5, dtype="float32"), 30),
  (aligned.Codec(512, "float16"), 1024),
  (aligned.Codec(512, "int8"), 512),
  (aligned.Codec(512, "float8_e4m3fn"), 512),
  (aligned.Codec(128, "int8"), 128),
]


@pytest.mark.parametrize(("codec", "size"), BYTES)
def test_bytes_of_a_crop(codec, size):
  arrays = {"geometry": GEOMETRY, **codec.arrays(WIDTHS)}
  header = Header(records=1, crops=1, shard=16, arrays=arrays, about={})
  assert header.bytes_per_crop == 14 + size


def power_law():
  """Rows whose principal components fall off as 1 / i, about some mean."""
  rng = np.random.default_rng(0)
  turn = np.linalg.qr(rng.standard_normal((64, 64)))[0]
  rows = rng.standard_normal((3000, 64)) / np.arange(1, 65)
  return (rows @ turn.T + rng.standard_normal(64)).astype(np.float32)


def of_digits():
  """An (untrained) teacher's features of all training digits."""
  fields = {"layers": (1, 1, 1, 1), "channels": (32, 64, 96, 128)}
  fields |= {"stem_width": 32, "stem_type": "cifar", "num_classes": 0}
  source, variables = random.load("resnet18", "", fields)
  data = digits.Source("train")
  images = np.stack([data[i]["image"] for i in range(len(data))])
  apply = jax.jit(lambda x: source.model.apply(variables, x, train=False))
  return np.asarray(apply(np.float32(images) / 255)["feature"])


@pytest.fixture(scope="module", params=[power_law, of_digits])
def features(request):
  rows = request.param()
  state = jax.jit(basis_lib.update)(
    basis_lib.init(rows.shape[1]), rows, np.ones(len(rows), np.float32)
  )
  found = basis_lib.finish(state)
  values = found.singular_values
  assert values[-1] < 0.02 * values[0] and values[5] < 0.5 * values[0]
  return rows, found


def carried(codec, features):
  """(constants, stored, what comes back) of all rows."""
  rows, found = features
  artifact = found.artifact(codec.width)
  # Scales are taken from some rows; the others must fit as well.
  constants = codec.constants(artifact, {"feature": rows[:512]})
  stored = jax.jit(codec.encode)(constants, {"feature": rows})
  widths = {"feature": rows.shape[1:]}
  decode = jax.jit(lambda c, s: codec.decode(c, s, widths))
  return constants, stored, decode(constants, stored)["feature"]


def scaled(constants, rows, width):
  z = svd.project(rows, constants["mean"], constants["basis"][:, :width])
  return np.asarray(pts.power_temperature(z, 0.1, 3.0))


@pytest.mark.parametrize(
  ("dtype", "mean", "worst"),
  [
    ("float16", 6e-8, 8e-8),
    ("int8", 3e-5, 6e-5),
    ("float8_e4m3fn", 1e-4, 2e-4),
  ],
)
def test_relative_error_of_the_targets(features, dtype, mean, worst):
  """Mean squared error over mean square, of all and of the worst direction."""
  rows, _ = features
  codec = aligned.Codec(48, dtype)
  constants, stored, back = carried(codec, features)
  (array,) = stored.values()
  (spec,) = codec.arrays({"feature": rows.shape[1:]}).values()
  assert (array.shape[1:], array.dtype.name) == spec == ((48,), spec[1])
  assert back.shape == rows.shape and back.dtype == jnp.float32
  want, got = (scaled(constants, x, 48) for x in (rows, back))
  lost, power = np.square(got - want), np.square(want)
  assert 1e-9 < lost.sum() / power.sum() < mean
  assert (lost.sum(0) / power.sum(0)).max() < worst
  # The same features serve a narrower student, with no other error.
  few = scaled(constants, back, 12)
  # Cubed: the root makes rounding large where a projection is nearly zero.
  np.testing.assert_allclose(few**3, got[:, :12] ** 3, rtol=1e-3, atol=1e-4)


def test_all_directions_bring_the_feature_back(features):
  rows, _ = features
  _, _, back = carried(aligned.Codec(rows.shape[1], "float16"), features)
  lost = np.square(back - rows).sum() / np.square(rows - rows.mean(0)).sum()
  assert 1e-9 < lost < 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_aligners_see_is_what_was_stored(features, dtype):
  """Projecting what was decoded gives the decoded projection."""
  codec = aligned.Codec(48, dtype)
  constants, stored, back = carried(codec, features)
  rows = features[0]
  if dtype == "float8_e4m3fn":
    small = jax.lax.bitcast_convert_type(
      stored["directions"], jnp.float8_e4m3fn
    )
    z = small.astype(jnp.float32) / 448 * constants["scale"]
  else:
    unit = 127 / constants["scale"] if dtype == "int8" else 1
    z = 0.1 * np.float32(np.asarray(stored["directions"]) / unit) ** 3
  seen = svd.Aligner().teacher(constants, back, 48)
  np.testing.assert_allclose(seen, z, atol=1e-5 * np.abs(rows).max())
  narrow = {**constants, "basis": constants["basis"][:, :5]}
  seen = svd.Aligner().teacher(narrow, back, 5)
  np.testing.assert_allclose(seen, z[:, :5], atol=1e-5 * np.abs(rows).max())


def test_few_values_are_clipped_and_those_to_the_scale(features):
  rows, _ = features
  for dtype, most in (("int8", 127), ("float8_e4m3fn", 448)):
    codec = aligned.Codec(48, dtype)
    constants, stored, _ = carried(codec, features)
    mild = np.abs(np.float32(number(stored["directions"], dtype))) == most
    assert mild.mean() < 1e-3
    far = {"feature": constants["mean"] + 100 * (rows[:50] - constants["mean"])}
    found = np.float32(
      number(codec.encode(constants, far)["directions"], dtype)
    )
    clipped = np.abs(found) == most
    assert np.isfinite(found).all() and clipped.mean() > 0.5
    values = scaled(constants, far["feature"], 48)
    np.testing.assert_array_equal(
      np.sign(found[clipped]), np.sign(values[clipped])
    )


def number(array, dtype):
  return array if dtype == "int8" else np.asarray(array).view(jnp.float8_e4m3fn)


def test_float16_keeps_what_is_too_large_finite():
  taps = {"feature": jnp.array([[1e6, -1e6, 0.5]])}
  found = raw.Codec(dtype="float16").encode({}, taps)["values"]
  np.testing.assert_array_equal(found, np.float16([[65504, -65504, 0.5]]))
  codec = aligned.Codec(3, "float16", temperature=1e-9, power=1.0)
  artifact = {"mean": jnp.zeros(3), "basis": jnp.eye(3)}
  found = codec.encode(artifact, taps)["directions"]
  np.testing.assert_array_equal(found, np.float16([[65504, -65504, 65504]]))


@pytest.fixture(scope="module")
def logits():
  draw = np.random.default_rng(1).standard_normal((20, 30), np.float32)
  return 4 * draw


def back_again(codec, logits):
  widths = {"logits": logits.shape[1:]}

  @jax.jit
  def through(logits):
    stored = codec.encode({}, {"logits": logits})
    return stored, codec.decode({}, stored, widths)

  stored, taps = through(logits)
  specs = codec.arrays(widths)
  assert {k: (x.shape[1:], x.dtype.name) for k, x in stored.items()} == specs
  assert np.isfinite(taps["logits"]).all()
  return jax.nn.softmax(taps["logits"] / codec.temperature)


def test_a_raw_tap_comes_back_bit_for_bit(logits):
  codec = raw.Codec(tap="logits")
  stored = codec.encode({}, {"logits": jnp.asarray(logits)})
  found = codec.decode({}, stored, {"logits": (30,)})
  np.testing.assert_array_equal(found["logits"], logits)
  assert codec.collect(type("Said", (), {"taps": {"logits": 1, "x": 2}})) == {
    "logits": 1
  }


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distributions_come_back(logits, temperature):
  want = np.asarray(jax.nn.softmax(logits / temperature))
  order = np.argsort(-want)
  exact = back_again(full.Codec(temperature), logits)
  np.testing.assert_allclose(exact, want, rtol=2e-5, atol=1e-7)
  half = back_again(full.Codec(temperature, "float16"), logits)
  np.testing.assert_allclose(half, want, rtol=1e-2, atol=1e-4)
  assert np.abs(half - want).max() > 1e-6

  top = np.take_along_axis(want, order[:, :5], 1)
  rest = 1 - top.sum(1, keepdims=True)
  for recover in ("smooth", "renorm"):
    codec = marginal.Codec(5, recover, temperature, "float32")
    found = np.take_along_axis(back_again(codec, logits), order, 1)
    smooth = recover == "smooth"
    kept = top if smooth else top / top.sum(1, keepdims=True)
    np.testing.assert_allclose(found[:, :5], kept, rtol=2e-5, atol=1e-6)
    fill = np.broadcast_to(rest / 25 * smooth, (20, 25))
    np.testing.assert_allclose(found[:, 5:], fill, rtol=1e-3, atol=1e-6)


def test_hard_labels_come_back_as_one_class(logits):
  want = np.eye(30)[logits.argmax(1)]
  np.testing.assert_allclose(back_again(hard.Codec(), logits), want, atol=1e-6)


ERRORS = [
  (raw, {"dtype": "int8"}, "codec.dtype is 'int8'; allowed:"),
  (full, {"dtype": "bfloat16"}, "codec.dtype is 'bfloat16'; allowed:"),
  (full, {"temperature": 0.0}, "temperature is 0.0; it must be positive"),
  (marginal, {"recover": "zero"}, "codec.recover is 'zero'; allowed:"),
  (marginal, {"top": 0}, "codec.top is 0; it must be at least 1"),
  (aligned, {"dtype": "uint8"}, "codec.dtype is 'uint8'; allowed:"),
  (aligned, {"power": 0.5}, "temperature > 0 and power >= 1; got .*0.5"),
  (aligned, {"width": 0}, "needs width >= 1.*width=0"),
]


@pytest.mark.parametrize(("module", "fields", "message"), ERRORS)
def test_values_that_are_refused(module, fields, message):
  with pytest.raises(ValueError, match=message):
    module.Codec(**fields)


def test_taps_that_do_not_fit_are_refused(features):
  rows, found = features
  with pytest.raises(ValueError, match="width is 512; the teacher's .* has 64"):
    aligned.Codec().arrays({"feature": (64,)})
  with pytest.raises(ValueError, match="width is 40; the basis has 30 direct"):
    aligned.Codec(40).constants(found.artifact(30), {"feature": rows[:9]})
  with pytest.raises(ValueError, match="top is 5 of 5 classes; use the codec"):
    marginal.Codec().arrays({"logits": (5,)})
  for codec in (hard.Codec(), marginal.Codec()):
    with pytest.raises(ValueError, match="has 65537 classes; class ids are"):
      codec.arrays({"logits": (65537,)})


def test_a_probability_of_zero_has_a_logarithm():
  """In compiled code, too, where subnormal numbers may be zero."""
  sure = jnp.full((1, 30), -200.0).at[0, 3].set(0.0)
  for codec in (hard.Codec(), full.Codec(), marginal.Codec()):
    want = np.eye(30)[[3]]
    np.testing.assert_allclose(back_again(codec, sure), want, atol=1e-6)


def test_every_codec_is_found_by_name():
  names = resolve.names("codecs", "Codec")
  assert {"aligned", "full", "hard", "marginal", "raw"} <= set(names)
  with pytest.raises(ValueError, match=r"codecs has no 'zip'; it has \["):
    resolve.build("codecs", "Codec", {"name": "zip"})
  assert not base.CodecBase.needs_basis and aligned.Codec.needs_basis
