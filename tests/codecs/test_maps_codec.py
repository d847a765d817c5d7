"""Maps in a few directions and 8 bits, against NumPy's SVD."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.align import basis as basis_lib
from kd_jax.codecs import maps
from kd_jax.data.bank import Header, compatibility

WIDTHS = {"stage4": (3, 3, 24), "feature": (32,)}


def made(shape, seed):
  """Values whose directions fall off as 1 / i, about some mean."""
  rng = np.random.default_rng(seed)
  dim = shape[-1]
  turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
  rows = rng.standard_normal((400, *shape)) / np.arange(1, dim + 1)
  return (rows @ turn.T + rng.standard_normal(dim)).astype(np.float32)


TAPS = {tap: made(shape, i) for i, (tap, shape) in enumerate(WIDTHS.items())}


@pytest.fixture(scope="module")
def artifacts():
  found = {}
  for tap, x in TAPS.items():
    rows = x.reshape(-1, x.shape[-1])
    state = basis_lib.init(rows.shape[1])
    state = basis_lib.update(state, rows, np.ones(len(rows), np.float32))
    found[tap] = basis_lib.finish(state).artifact(rows.shape[1])
  return found


def carried(codec, artifacts):
  """(constants, stored, what comes back) of all rows."""
  constants = codec.constants(artifacts, TAPS)
  taps = {tap: jnp.asarray(TAPS[tap]) for tap in codec.taps}
  stored = jax.jit(codec.encode)(constants, taps)
  back = jax.jit(lambda c, s: codec.decode(c, s, WIDTHS))(constants, stored)
  return constants, stored, back


def of_numpy(x, kept):
  """x from the leading directions of NumPy's SVD of its centred rows."""
  rows = np.float64(x).reshape(-1, x.shape[-1])
  mean = rows.mean(0)
  _, _, turned = np.linalg.svd(rows - mean, full_matrices=False)
  z = (rows - mean) @ turned[:kept].T
  return (mean + z @ turned[:kept]).reshape(x.shape)


@pytest.mark.parametrize("kept", [7, 0])
def test_float32_is_numpys_truncated_svd(artifacts, kept):
  codec = maps.Codec({"stage4": kept, "feature": 5}, "float32")
  _, stored, back = carried(codec, artifacts)
  assert stored["stage4"].shape == (400, 3, 3, kept or 24)
  for tap, count in (("stage4", kept or 24), ("feature", 5)):
    want = of_numpy(TAPS[tap], count)
    np.testing.assert_allclose(back[tap], want, atol=2e-5)
    assert (np.abs(want - TAPS[tap]).max() > 0.05) == (count < 24)


def test_8_bits_lose_little_and_every_direction_has_its_scale(artifacts):
  codec = maps.Codec({"stage4": 7})
  constants, stored, back = carried(codec, artifacts)
  assert stored["stage4"].dtype == jnp.int8
  most = np.abs(np.int16(stored["stage4"])).max((0, 1, 2))
  assert most.min() > 90 and most.max() <= 127
  assert np.ptp(constants["stage4/scale"]) > 2  # the first is 7 times the last
  exact = of_numpy(TAPS["stage4"], 7)
  spread = np.square(exact - exact.mean((0, 1, 2))).sum()
  lost = np.square(back["stage4"] - exact).sum() / spread
  assert 1e-6 < lost < 2e-4


def test_the_error_that_is_told_is_that_of_other_crops(artifacts):
  codec = maps.Codec({"stage4": 7})
  constants, _, back = carried(codec, artifacts)
  ((tap, (lost, beyond)),) = codec.lost(constants, TAPS).items()
  want = TAPS[tap][1::2]
  spread = np.square(want - want.mean((0, 1, 2))).sum()
  for share, found in ((lost, back[tap]), (beyond, of_numpy(TAPS[tap], 7))):
    off = np.square(np.asarray(found)[1::2] - want).sum() / spread
    np.testing.assert_allclose(share, off, rtol=1e-3)
  assert beyond < lost < beyond + 2e-4


def test_bytes_and_shapes_and_tokens():
  codec = maps.Codec({"stage4": 256, "feature": 512})
  widths = {"stage4": (7, 7, 2048), "feature": (2048,)}
  arrays = {"geometry": ((7,), "int16"), **codec.arrays(widths)}
  header = Header(records=1, crops=1, shard=16, arrays=arrays, about={})
  assert header.bytes_per_crop == 14 + 49 * 256 + 512
  said = {"stage4": jnp.arange(2 * 10 * 3.0).reshape(2, 10, 3)}  # a class token
  said["feature"] = jnp.ones((2, 4))
  found = codec.collect(types.SimpleNamespace(taps=said))
  assert found["stage4"].shape == (2, 3, 3, 3)
  assert found["stage4"][0, 0, 0, 0] == 3.0 and found["feature"].ndim == 2


def test_a_bank_has_the_basis_of_each_tap(artifacts):
  codec = maps.Codec({"stage4": 7, "feature": 5})
  constants, *_ = carried(codec, artifacts)
  own = compatibility.basis_of(constants, "stage4")
  np.testing.assert_array_equal(
    own["basis"], artifacts["stage4"]["basis"][:, :7]
  )
  found = compatibility.artifact(own, "stage4", 4)
  assert found["basis"].shape == (24, 4)
  assert compatibility.basis_of(constants, "stage3") is None
  with pytest.raises(ValueError, match="codec.directions.stage4=9"):
    compatibility.artifact(own, "stage4", 9)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"dtype": "int4"}, "codec.dtype is 'int4'; allowed:"),
    ({"power": 0.5}, "codec.power is 0.5; it must be at least 1"),
    ({"directions": {}}, "codec.directions is {}; it maps taps to how many"),
    ({"directions": {"stage4": -1}}, "codec.directions is {'stage4': -1}"),
    ({"directions": {"stage4": "8"}}, "codec.directions is {'stage4': '8'}"),
  ],
)
def test_fields_of_maps_that_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    maps.Codec(**fields)


def test_more_directions_than_channels_are_refused():
  with pytest.raises(ValueError, match="directions.stage4 is 25; .* has 24 ch"):
    maps.Codec({"stage4": 25}).arrays(WIDTHS)
