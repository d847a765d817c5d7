"""Label codecs against FKD's and ReLabel's own code."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import resolve
from kd_jax.codecs import label_map, marginal, roi
from kd_jax.teachers import random
from kd_jax.types import Batch, Teacher

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
WIDTHS = {"logits": (1000,)}


def codec(name, **fields):
  return resolve.build("codecs", "Codec", {"name": name, **fields})


# FKD's name of a label type, and the same as a codec.
TYPES = {
  "hard": codec("hard"),
  "smoothing": codec("marginal", top=1),
  "marginal_smoothing_k5": codec("marginal", top=5),
  "marginal_smoothing_k10": codec("marginal", top=10),
  "marginal_renorm_k5": codec("marginal", top=5, recover="renorm"),
}


def variant(name, temperature, dtype):
  if name == "hard":
    return TYPES[name]
  fields = {"temperature": temperature, "dtype": dtype}
  return marginal.Codec(
    top=TYPES[name].top, recover=TYPES[name].recover, **fields
  )


def probabilities(logits, temperature):
  return np.asarray(jax.nn.softmax(logits / temperature))


completed = jax.jit(marginal.completed, static_argnames=("classes", "recover"))


@pytest.fixture(scope="module")
def quant():
  return dict(np.load(GOLDEN / "fkd_label_quant.npz"))


@pytest.mark.parametrize("name", sorted(TYPES))
def test_soft_labels_are_stored_and_recovered_as_by_fkd(name, quant):
  for temperature, dtype, tag in (
    (1.0, "float32", ("", "", "T1")),
    (2.0, "float32", ("", "", "T2")),
    (1.0, "float16", ("16", "_from16", "T1")),
  ):
    if f"recovered{tag[1]}_{name}_{tag[2]}" not in quant:
      continue
    kind = variant(name, temperature, dtype)
    stored = kind.encode({}, {"logits": quant["logits"]})
    theirs = quant[f"stored{tag[0]}_{name}_{tag[2]}"].astype(np.float32)
    if name == "hard":
      np.testing.assert_array_equal(stored["class"], theirs)
    else:
      theirs = theirs.reshape(12, 2, -1)
      np.testing.assert_array_equal(stored["class"], theirs[:, 0])
      near = 3e-7 if dtype == "float32" else 0
      np.testing.assert_allclose(stored["probability"], theirs[:, 1], 0, near)
      stored["probability"] = jnp.asarray(theirs[:, 1]).astype(dtype)
    taps = kind.decode({}, stored, WIDTHS)
    want = quant[f"recovered{tag[1]}_{name}_{tag[2]}"]
    found = probabilities(taps["logits"], temperature)
    np.testing.assert_allclose(found, np.maximum(want, 0), 0, 5e-7)


def test_recovery_by_hand_and_where_half_precision_sums_to_more_than_one(quant):
  index, value = quant["toy_stored"].transpose(1, 0, 2)
  index = index.astype(np.int32)
  for recover, want in (("smooth", "toy_ms5_C8"), ("renorm", "toy_mr_C8")):
    found = completed(index, value, classes=8, recover=recover)
    np.testing.assert_allclose(found, quant[want], 0, 1e-7)
  found = completed(index[:, :1], value[:, :1], classes=8, recover="smooth")
  np.testing.assert_allclose(found, quant["toy_smoothing_C8"], 0, 1e-7)
  index, value = quant["stored_marginal_smoothing_k10_T1"].transpose(1, 0, 2)
  found = completed(
    index.astype(np.int32), value, classes=1000, recover="renorm"
  )
  np.testing.assert_allclose(
    found, quant["recovered_renorm_on_k10_T1"], 0, 3e-7
  )
  index, value = np.float32(quant["negfill_stored16"]).transpose(1, 0, 2)
  assert (value.sum(1) > 1).all() and quant["negfill_recovered"].min() < 0
  found = completed(
    index.astype(np.int32), value, classes=1000, recover="smooth"
  )
  assert found.min() == 0
  np.testing.assert_allclose(found, quant["negfill_recovered"], 0, 5e-8)


@pytest.fixture(scope="module")
def pool():
  return dict(np.load(GOLDEN / "relabel_labelpool.npz"))


@pytest.mark.parametrize("order", ["xy", "code"])
def test_label_maps_are_pooled_as_by_relabel(order, pool):
  kind = label_map.Codec(dtype="float32", corner_order=order)
  widths = {"label_map": (15, 15, 1000)}
  assert kind.arrays(widths) == {
    "class": ((15, 15, 5), "uint16"),
    "score": ((15, 15, 5), "float32"),
  }
  scores, classes = pool["label_topk"].transpose(1, 0, 3, 4, 2)
  stored = {
    "class": classes.astype(np.uint16),
    "score": scores,
    "corners": pool["corners"],
  }
  decode = jax.jit(lambda s: kind.decode({}, s, widths)["logits"])
  found = decode(stored)
  np.testing.assert_allclose(found, pool[f"pooled_{order}_order"], 0, 3e-6)
  np.testing.assert_allclose(
    jax.nn.softmax(found), pool[f"target_{order}_order"], 0, 1e-6
  )
  # The top scores of a dense map are what was stored.
  dense = np.full((6, 15, 15, 1000), -1e3, np.float32)
  np.put_along_axis(dense, classes.astype(int), scores, -1)
  again = kind.encode({}, {"label_map": dense})
  order_of = np.argsort(-scores, -1, kind="stable")
  np.testing.assert_array_equal(
    again["score"], np.take_along_axis(scores, order_of, -1)
  )


def test_positions_are_rounded_as_by_relabel():
  share = np.random.default_rng(0).random(10_000, np.float32)
  found = jax.jit(lambda x: roi._position(x, 15))(share)
  np.testing.assert_array_equal(found, share * np.float32(15) - np.float32(0.5))


def test_the_map_of_a_network_averages_to_its_logits():
  overrides = {
    "layers": (1, 1, 1, 1),
    "channels": (8, 8, 8, 8),
    "stem_width": 4,
    "num_classes": 6,
  }
  source, variables = random.load("resnet18", "", overrides)
  image = np.random.default_rng(0).uniform(size=(2, 96, 96, 3))
  batch = Batch(image.astype(np.float32), np.zeros(2, int), np.ones(2))
  kind = label_map.Codec(top=6, dtype="float32")

  @jax.jit
  def run(frozen):
    teacher = source(frozen, batch)
    taps = kind.collect(teacher)
    corners = jnp.array([[0, 0, 1, 1], [0, 0, 1 / 3, 2 / 3]], jnp.float32)
    stored = {**kind.encode({}, taps), "corners": corners}
    widths = {"label_map": taps["label_map"].shape[1:]}
    pooled = kind.decode({}, stored, widths)
    return taps["label_map"], teacher.taps["logits"], pooled["logits"]

  cells, logits, pooled = run({"teacher": variables})
  assert cells.shape == (2, 3, 3, 6) and np.ptp(cells[0, :, :, 0]) > 0.01
  np.testing.assert_allclose(cells.mean((1, 2)), logits, 1e-4, 1e-5)
  # Samples lie at -.5 + (i + .5): 0, 1, 2 of the whole map, 0 and 1 of a part.
  np.testing.assert_allclose(pooled[0], cells[0].mean((0, 1)), 1e-4, 1e-5)
  np.testing.assert_allclose(pooled[1], cells[1, 0, :2].mean(0), 1e-4, 1e-5)


@pytest.mark.parametrize("name", ["marginal", "label_map"])
def test_labels_are_mixed_as_by_fkd(name):
  golden = np.load(GOLDEN / "fkd_mix.npz")
  kind = codec(name)
  assert kind.mixes and not codec("raw").mixes
  logits = jnp.log(golden["soft"])
  for case in ("mixup_lam", "cutmix0_lam_adj"):
    taps = kind.mixed({"logits": logits}, golden["perm"], 1 - golden[case])
    want = golden[case.partition("_")[0] + "_soft"]
    np.testing.assert_allclose(probabilities(taps["logits"], 1), want, 0, 4e-7)


def test_errors():
  with pytest.raises(ValueError, match="codec.corner_order is 'yx'"):
    label_map.Codec(corner_order="yx")
  with pytest.raises(ValueError, match="codec.top is 0; it must be at least 1"):
    label_map.Codec(top=0)
  with pytest.raises(ValueError, match="the teacher has 3 classes"):
    label_map.Codec(top=5).arrays({"label_map": (2, 2, 3)})
  with pytest.raises(ValueError, match="2 x 3 map, which must be square"):
    label_map.Codec(corner_order="code").arrays({"label_map": (2, 3, 9)})
  tokens = Teacher({"stage4": np.zeros((1, 5, 8))}, lambda *_: {})
  stored = Teacher({"logits": np.zeros((1, 5))}, None)
  for teacher in (tokens, stored):
    with pytest.raises(ValueError, match="'label_map' runs the teacher's head"):
      label_map.Codec().collect(teacher)
