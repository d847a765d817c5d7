"""Which parameters a detector trains on a frozen backbone."""

import pytest
from detector_nets import tiny

from kd_jax import trees
from kd_jax.models import backbone
from kd_jax.train import phases
from kd_jax.transfer.detect import Method
from kd_jax.transfer.detection import losses


@pytest.mark.parametrize("masks", [False, True])
def test_heads_are_trained_with_masks_and_without(masks):
  net = tiny("resnet18", "c4", masks=masks)
  (phase,) = Method(net, losses.names(net), trains="head").phases()
  params = {"student": backbone.variable_shapes(net)["params"]}
  phases.check_trainable(phase, params)
  trained = trees.flatten(trees.select(params, phase.trainable, phase.frozen))
  parts = {path.split("/")[1] for path in trained}
  assert parts == {"rpn", "box", *(("mask",) if masks else ())}
