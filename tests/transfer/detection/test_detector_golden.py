"""Mask R-CNN in both forms, against what Detectron2 makes of the weights."""

from __future__ import annotations

import functools

import detector_golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kd_jax import trees
from kd_jax.transfer.detection import detector, losses, proposals
from kd_jax.transfer.detection.pyramid import Pyramid

TERMS = {
  "rpn_class": "rpn_cls",
  "rpn_box": "rpn_loc",
  "class": "cls",
  "box": "box_reg",
  "mask": "mask",
}


def near(got, want, error=1e-4):
  """Relative to the largest value."""
  want = np.asarray(want, np.float64)
  assert np.shape(got) == want.shape and np.abs(want).max() > 0
  assert np.abs(got - want).max() <= error * np.abs(want).max()


CALL = detector._Call(False, False, "stem")
# The second stage of a ResNet-50 takes long.
SOME = ["det_r18_fpn", pytest.param("det_r50_c4", marks=pytest.mark.slow)]


class Case:
  """A file, its network, and what one compilation says of its images."""

  def __init__(self, name):
    self.golden = detector_golden.load(name)
    self.net, self.variables = detector_golden.network(self.golden)
    self.fpn = name == "det_r18_fpn"
    found = self.compiled(self.learn, self.golden.images)
    self.maps, self.first, self.learnt, self.terms = found

  def compiled(self, method, *args):
    run = jax.jit(nn.apply(method, self.net)).lower(self.variables, *args)
    # Half of the time of this file, otherwise.
    run = run.compile(compiler_options={"xla_backend_optimization_level": 0})
    return jax.device_get(run(self.variables, *args))

  @functools.cached_property
  def said(self):
    """Detections from the maps and the file's proposals."""
    proposed = self.stored("proposals")
    return self.compiled(self.detect, self.maps, proposed)

  def stored(self, name):
    boxes = np.stack(self.golden.both(name))
    score = np.tile(-np.arange(64.0, dtype="f4"), (2, 1))
    return proposals.Proposals(boxes, score, np.ones((2, 64), bool))

  def learn(self, net, images):
    """Both stages; the second one on the file's proposals."""
    taps = net._run(images, CALL, begin="stem", end=net.form.END)
    pyramid = net._pyramid(taps, images, None)
    objectness, deltas = net.rpn(pyramid.maps)
    own = pyramid.propose(objectness, deltas, threshold=0.7, learning=False)
    proposed = self.stored("train_proposals")
    asked = net._asked(pyramid, proposed, self.golden.truth, CALL)
    asked["objectness"] = jnp.concatenate(objectness, 1)
    asked["anchor_deltas"] = jnp.concatenate(deltas, 1)
    terms = losses.terms(asked, self.golden.truth, net)
    return pyramid.maps, (objectness, deltas, own), asked, terms

  def detect(self, net, maps, proposed):
    return net._detected(self.pyramid(maps), proposed, CALL)

  def pyramid(self, maps):
    strides = self.net.form.strides(maps, tuple(self.golden.meta["hw"]))
    return Pyramid(self.net.form, maps, strides, self.golden.truth.size)


@pytest.fixture(scope="module", params=list(detector_golden.PLANS))
def case(request):
  return Case(request.param)


def test_maps(case):
  names = [f"p{i}" for i in range(2, 7)] if case.fpn else ["res4"]
  for name, x in zip(names, case.maps, strict=True):
    want = case.golden.arrays[f"eval_map_{name}"]
    near(detector_golden.thinned(x.transpose(0, 3, 1, 2)), want)


def test_anchors(case):
  found = case.pyramid(case.maps).anchors
  for i, x in enumerate(found):
    want = case.golden.arrays[f"anchors_{i}"]
    near(detector_golden.thinned(x, 4000), want.reshape(-1), 1e-6)


def test_what_the_first_stage_says(case):
  for i, (score, delta) in enumerate(zip(*case.first[:2], strict=True)):
    size = case.maps[i].shape[:3]
    for name, x in (("objectness", score), ("deltas", delta)):
      # The file holds (images, anchors, rows, columns).
      x = x.reshape(*size, -1).transpose(0, 3, 1, 2)
      near(detector_golden.thinned(x), case.golden.arrays[f"{name}_{i}"])


def test_proposals(case):
  own = case.first[2]
  for i, boxes in enumerate(case.golden.both("proposals")):
    logits = case.golden.arrays[f"proposal_logits_{i}"]
    assert own.valid[i].all()
    near(own.scores[i], logits)
    check_rows(own.boxes[i], own.scores[i], boxes)


def check_rows(boxes, scores, want):
  """Equal but for the order of rows that score alike."""
  for row, box in enumerate(want):
    alike = np.abs(scores - scores[row]) <= 1e-4
    assert np.abs(boxes[alike] - box).max(1).min() <= 1e-3


@pytest.mark.parametrize("case", SOME, indirect=True)
def test_detections(case):
  for i, boxes in enumerate(case.golden.both("det_boxes")):
    arrays, said = case.golden.arrays, case.said
    near(said["scores"][i], arrays[f"det_scores_{i}"])
    check_rows(said["boxes"][i], said["scores"][i], boxes)
    classes = arrays[f"det_classes_{i}"]
    np.testing.assert_array_equal(said["classes"][i], classes)
    near(said["masks"][i], arrays[f"det_masks_{i}"], 1e-3)


def test_sampled_regions(case):
  for i, boxes in enumerate(case.golden.both("roi_boxes")):
    near(case.learnt["roi_boxes"][i], boxes, 1e-6)
    classes = case.golden.arrays[f"roi_classes_{i}"]
    np.testing.assert_array_equal(case.learnt["roi_classes"][i], classes)


def test_losses(case):
  check_losses(case, case.terms)


def check_losses(case, found):
  assert set(found) == set(TERMS) == set(losses.names(case.net))
  for name, theirs in TERMS.items():
    near(found[name], case.golden.arrays[f"loss/loss_{theirs}"])


@pytest.mark.slow
def test_the_whole(case):
  """Nothing of the file comes in between the images and the gradients."""
  golden, net, variables = case.golden, case.net, case.variables
  stats = {"batch_stats": variables["batch_stats"]}

  def loss(params):
    taps = net.apply(
      {"params": params, **stats}, golden.images, truth=golden.truth
    )
    found = losses.terms(taps, golden.truth, net)
    return sum(found.values()), found

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (_, found), grads = run(variables["params"])
  check_losses(case, found)
  check_gradients(case, trees.flatten({"params": grads}))
  said = jax.jit(net.apply)(variables, golden.images)
  for name in ("boxes", "scores", "masks"):
    near(said[name], case.said[name], 1e-3)
  np.testing.assert_array_equal(said["classes"], case.said["classes"])


def check_gradients(case, grads):
  """Norms of all."""
  shapes = dict(map(tuple, case.golden.meta["names"]))
  names = case.golden.meta["grad_names"]
  # Where each tensor went: a number per name, then the paths that hold it.
  marks = {k: np.full(shapes[k], float(i + 1)) for i, k in enumerate(names)}
  filled = {k: np.zeros(v) for k, v in shapes.items()} | marks
  places = trees.flatten(detector_golden.placed(case.net.backbone, filled))
  found = {
    names[int(v.flat[0]) - 1]: np.linalg.norm(grads[path])
    for path, v in places.items()
    if v.flat[0]
  }
  assert len(found) == len(names) == len(grads)
  got = np.array([found[name] for name in names])
  np.testing.assert_allclose(got, case.golden.arrays["grad_norm"], rtol=1e-3)
