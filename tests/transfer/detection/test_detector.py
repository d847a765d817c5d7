"""Detectors on students of all kinds, trained and evaluated."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from detector_nets import NETWORKS, RESNET, tiny, truth
from flax import linen as nn

from kd_jax import trees
from kd_jax.models.blocks import layers
from kd_jax.transfer.detection import (
  detector,
  losses,
  parts,
  proposals,
  targets,
)

FORMS = [
  ("resnet18", "fpn"),
  ("resnet18", "c4"),
  ("vit_tiny_patch16_224", "simple"),
]
OTHERS = [
  ("regnety_002", "fpn"),
  ("mobilenetv2_035", "fpn"),
  ("efficientnet_b0", "fpn"),
  ("convnext_atto", "fpn"),
  ("swin_tiny_patch4_window7_224", "fpn"),
  ("mobilenetv2_035", "c4"),
  ("convnext_atto", "c4"),
  ("swin_tiny_patch4_window7_224", "c4"),
  ("mixer_s16_224", "simple"),
  ("eva02_tiny_patch14_224", "simple"),
]


SLOW = [pytest.param(*x, marks=pytest.mark.slow) for x in OTHERS]


@pytest.mark.parametrize(("student", "form"), [*FORMS, *SLOW])
def test_the_backbone_keeps_its_tree(student, form):
  """So that pre-trained variables can be put in its place."""
  net = tiny(student, form)
  _, variables = zoo.shapes(net)
  _, bare = zoo.shapes(net.backbone)
  groups = {"backbone", "rpn", "box", "mask"}
  want = groups if form == "c4" else groups | {"neck"}
  assert set(variables["params"]) == want
  for kind, tree in bare.items():
    assert trees.flatten(variables[kind]["backbone"]) == trees.flatten(tree)
  assert net.num_features == net.backbone.num_features
  assert net.NO_DECAY == net.backbone.NO_DECAY


@pytest.mark.parametrize(("student", "form"), [FORMS[2], *SLOW])
def test_shapes_of_detections(student, form):
  """Halves inside, float32 outside."""
  half = jnp.dtype("bfloat16")
  body = {**NETWORKS.get(student, {}), "dtype": half}
  net = tiny(student, form, body, dtype=half)
  _, variables = zoo.shapes(net)
  images = jax.ShapeDtypeStruct((2, *net.example_size, 3), jnp.float32)
  taps = jax.eval_shape(net.apply, variables, images)
  assert taps["boxes"].shape == (2, 5, 4)
  assert taps["masks"].shape[:2] == (2, 5)
  names = ("boxes", "scores", "masks", "objectness", "anchor_deltas")
  assert {taps[name].dtype for name in names} == {jnp.dtype("float32")}
  assert taps["stage3"].dtype == half


def test_strides_are_those_of_the_maps():
  net = tiny("resnet18", "fpn", {**RESNET, "stem_type": "cifar"})
  taps = zoo.shapes(net.backbone)[0]
  found = net.form.inputs(net.backbone, taps, (64, 64))
  assert net.form.strides(found, (64, 64)) == (1, 2, 4, 8, 16)
  # Patches of 14 pixels, in odd numbers.
  net = tiny("vit_tiny_patch16_224", "simple")
  x = jax.ShapeDtypeStruct((1, 5, 3, 16), jnp.float32)
  assert net.form.strides([x], (70, 42)) == (3.5, 7, 14, 28, 56)
  neck = net.form.neck(None)
  found, _ = jax.eval_shape(
    lambda x: neck.init_with_output(jax.random.key(0), [x]), x
  )
  sizes = [level.shape[1:3] for level in found]
  assert sizes == [(20, 12), (10, 6), (5, 3), (3, 2), (2, 1)]


def not_read(net):
  """Without the cost of tracing the initialisation."""
  with zoo.zeros():
    return set(detector.unread(net))


def test_what_is_not_trained_is_known():
  net = tiny("vit_tiny_patch16_224", "simple")
  names = ("neck/norm/bias", "neck/norm/scale")
  assert not_read(net) == {f"student/backbone/{name}" for name in names}
  net = tiny("resnet18", "c4")
  params = trees.flatten(zoo.shapes(net)[1]["params"])
  norms = {
    f"student/{path}"
    for path in params
    if path.startswith("backbone") and path.endswith(("bias", "scale"))
  }
  assert len(norms) > 10 and not_read(net) == norms


IMAGES = np.random.default_rng(0).uniform(size=(2, 64, 64, 3)).astype("f4")


@functools.cache
def learner(form="fpn"):
  """(network, its variables, compiled (params, truth, key) -> ...)."""
  net = tiny("resnet18", form, norm="train")
  variables = zoo.drawn(net)
  stats = {"batch_stats": variables["batch_stats"]}

  def loss(params, truth, key):
    taps, updated = net.apply(
      {"params": params, **stats},
      IMAGES,
      truth=truth,
      train=True,
      mutable=["batch_stats"],
      rngs={"dropout": key},
    )
    terms = losses.terms(taps, truth, net)
    return sum(terms.values()), (terms, taps, updated)

  return net, variables, jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.mark.slow
def test_every_parameter_learns():
  _, variables, run = learner()
  (_, (terms, taps, updated)), grads = run(
    variables["params"], truth(), jax.random.key(0)
  )
  assert all(np.isfinite(v) and v > 0 for v in terms.values())
  still = {k for k, v in trees.flatten(grads).items() if not np.any(v)}
  # Only a sampled anchor of the two coarsest levels would reach it.
  assert {path.rpartition("/")[0] for path in still} <= {"neck/output_stage4"}
  before = trees.flatten(variables["batch_stats"])
  for path, value in trees.flatten(updated["batch_stats"]).items():
    assert np.any(value != before[path]), path
  rows, classes = taps["roi_rows"], np.asarray(taps["roi_classes"])
  objects = (classes >= 0) & (classes < 3)
  own = np.take_along_axis(truth().classes, np.asarray(rows), 1)
  assert objects.sum() >= 2
  np.testing.assert_array_equal(classes[objects], own[objects])


def test_the_key_decides_what_is_looked_at():
  _, variables, run = learner()
  found = [
    run(variables["params"], truth(), jax.random.key(key))[0][1][1]
    for key in (0, 0, 1)
  ]
  for name in ("roi_boxes", "anchor_labels"):
    np.testing.assert_array_equal(found[0][name], found[1][name])
    assert np.any(found[0][name] != found[2][name])
    assert np.any(found[0][name][0] != found[0][name][1])


def test_images_without_objects():
  _, variables, run = learner()
  (_, (terms, taps, _)), grads = run(
    variables["params"], truth(((), ())), jax.random.key(0)
  )
  assert terms["box"] == terms["mask"] == terms["rpn_box"] == 0
  assert terms["class"] > 0 and terms["rpn_class"] > 0
  assert set(np.unique(taps["roi_classes"])) <= {-1, 3}
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


@pytest.mark.slow
def test_detections_of_an_exported_program():
  """On the device from images to boxes, within the images."""
  net = tiny("resnet18", "fpn", score=0.0)
  variables = jax.device_put(zoo.drawn(net))
  size = jnp.array([[64, 64], [40, 48]])
  run = jax.jit(lambda v, x, s: net.apply(v, x, size=s))
  kept = jax.export.export(run)(variables, jnp.asarray(IMAGES), size)
  given = jax.device_put((variables, IMAGES, size))
  said = jax.jit(jax.export.deserialize(kept.serialize()).call)
  said = said.lower(*given).compile()
  with jax.transfer_guard("disallow"):
    taps = said(*given)
  taps = jax.device_get(taps)
  assert taps["masks"].shape == (2, 5, 28, 28)
  scores, boxes = taps["scores"], taps["boxes"]
  assert (np.diff(scores) <= 0).all() and (scores[:, 0] > 0).all()
  np.testing.assert_array_equal(taps["classes"] >= 0, scores > 0)
  assert (boxes >= 0).all()
  assert (boxes[1].max(0) <= (48, 40, 48, 40)).all() and boxes[0].max() > 48
  assert taps["masks"].min() > 0 and taps["masks"].max() < 1


def test_frozen_statistics_stay():
  variables = zoo.drawn(tiny("resnet18", "c4"))

  def run(norm, train):
    net = tiny("resnet18", "c4", norm=norm)
    call = detector._Call(train, train, "stem")
    found, updated = nn.apply(
      lambda m: m._run(IMAGES, call, begin="stem", end="stem"),
      net,
      mutable=["batch_stats"],
    )(variables)
    return found["stem"], trees.flatten(updated)

  want = run("train", False)
  for norm, same in (("frozen", True), ("train", False)):
    found = run(norm, True)
    assert np.allclose(found[0], want[0]) == same
    alike = [np.allclose(v, want[1][k]) for k, v in found[1].items()]
    assert all(alike) == same


def test_regions_share_statistics_with_their_images():
  """Groups of two images, three regions each."""
  x = np.random.default_rng(0).normal(size=(12, 5, 2)).astype("f4")
  norm = layers.BatchNorm()
  variables = norm.init(jax.random.key(0), x, train=False)
  with layers.batch_norms(group=2, one_sum=False), parts.per_region(3):
    got, _ = norm.apply(variables, x, train=True, mutable=["batch_stats"])
  for rows in (slice(0, 6), slice(6, 12)):
    own = x[rows]
    want = (own - own.mean((0, 1))) / np.sqrt(own.var((0, 1)) + 1e-5)
    np.testing.assert_allclose(got[rows], want, atol=1e-5)


def test_deconvolution_is_a_transposed_convolution():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 4, 5)).astype("f4")
  kernel = rng.normal(size=(2, 2, 5, 6)).astype("f4")
  variables = {"params": {"kernel": kernel, "bias": np.zeros(6, "f4")}}
  got = parts.Deconv(6).apply(variables, x)

  def strided(y):
    names = ("NHWC", "HWIO", "NHWC")
    swapped = kernel.swapaxes(2, 3)
    return jax.lax.conv_general_dilated(
      y, swapped, (2, 2), "VALID", dimension_numbers=names
    )

  _, back = jax.vjp(strided, jnp.zeros((2, 6, 8, 6)))
  np.testing.assert_allclose(got, back(x)[0], rtol=1e-5, atol=1e-5)


def test_masks_in_regions():
  """A mask in the frame of its box is the same on the whole canvas."""
  canvas = np.zeros((1, 40, 48), np.float32)
  canvas[0, 8:24, 16:40] = 1
  canvas[0, 8:16, 16:28] = 0
  frame = np.float32([[16, 8, 40, 24]])
  own = canvas[:, 8:24, 16:40]
  boxes = np.float32([[16, 8, 40, 24], [10, 4, 30, 20], [20, 10, 46, 38]])
  rows = np.zeros(3, np.int32)
  run = jax.jit(lambda m, f: targets.of_masks(m, f, boxes, rows, 8))
  got = run(own, frame)
  whole = run(canvas, np.float32([[0, 0, 48, 40]]))
  np.testing.assert_array_equal(got, whole)
  want = np.kron([[0, 1], [1, 1]], np.ones((4, 4)))
  np.testing.assert_array_equal(got[0], want)


def test_proposals_that_are_none():
  """Not finite, empty outside the image, or fewer than there is room for."""
  anchors = np.float32([[0, 0, 8, 8], [4, 4, 20, 20], [90, 0, 99, 9]])
  anchors = np.concatenate([anchors, anchors + 1])
  score = jnp.array([1.0, 4, 5, 2, jnp.nan, 0])
  deltas = jnp.zeros((6, 4)).at[3, 2].set(jnp.nan)
  propose = functools.partial(
    proposals.propose,
    anchors=[anchors, anchors[:1]],
    size=jnp.array([32, 64]),
    before=6,
    after=4,
    threshold=0.7,
  )
  found = jax.jit(propose)([score, score[:1]], [deltas, deltas[:1]])
  np.testing.assert_array_equal(found.valid, [True, True, True, False])
  np.testing.assert_allclose(found.scores[:3], [4, 1, 1])
  # Boxes of two levels do not suppress each other.
  want = [anchors[1], anchors[0], anchors[0], np.zeros(4)]
  np.testing.assert_allclose(found.boxes, want, atol=1e-5)


def test_empty_slots_repeat_others_and_are_not_learnt_from():
  boxes = jnp.array([[0, 0, 10, 10], [0, 0, 10, 9.0], [20, 20, 30, 30]])
  proposed = proposals.Proposals(
    boxes, jnp.zeros(3), jnp.array([True, False, True])
  )
  rule = targets.Sampling(8, 0.25, 0.5, 0.5)
  run = jax.jit(
    lambda p: targets.of_proposals(None, p, boxes[:1], jnp.array([1]), rule, 3)
  )
  found = run(proposed)
  classes = [1, 1, 3, -1, -1, -1, -1, -1]
  np.testing.assert_array_equal(found.classes, classes)
  np.testing.assert_array_equal(found.boxes[3:6], found.boxes[:3])
  np.testing.assert_array_equal(found.boxes[2], boxes[2])


def test_stages_can_be_run_alone():
  net = tiny("resnet18", "fpn")
  variables = zoo.shapes(net)[1]
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  taps = jax.eval_shape(
    functools.partial(net.apply, end="stage2"), variables, images
  )
  assert set(taps) == {"stem", "stage1", "stage2"}
  with pytest.raises(ValueError, match="begin of a detector is 'stage3'"):
    net.apply(variables, taps["stage2"], begin="stage3")
