from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

from kd_jax import create_model
from kd_jax.models.blocks.tokens import transformer
from kd_jax.report.pictures import look
from kd_jax.types import Teacher

SMALL = {
  "embed_dim": 16,
  "depth": 4,
  "num_heads": 2,
  "img_size": 32,
  "patch_size": 8,
  "num_classes": 0,
}


def seen(name, **fields):
  """(what a small network sees in two images, network, variables, images)."""
  model = create_model(name, **fields)
  variables = zoo.drawn(model)
  image = np.random.default_rng(0).integers(
    0, 256, (2, *model.example_size, 3), np.uint8
  )
  looks = look.of_network(model, variables, "pooled")
  return looks(image, True), model, variables, image


def attended(model, variables, image):
  """The weights of every attention, by the interface that says them."""
  weights = []
  whole = transformer.attend

  def attend(q, k, v, **options):
    logits = jnp.einsum("nqhd,nkhd->nhqk", q, k) / np.sqrt(q.shape[-1])
    weights.append(np.asarray(jax.nn.softmax(logits)))
    return whole(q, k, v, **options)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(transformer, "attend", attend)
    model.apply(variables, image / np.float32(255))
  return weights


def test_tokens_become_a_map_and_the_class_token_attends():
  found, model, variables, image = seen(
    "vit_tiny_patch16_224", **SMALL, reg_tokens=2
  )
  taps = model.apply(variables, image / np.float32(255))
  np.testing.assert_allclose(found.feature, taps["pooled"], atol=1e-5)
  (name,) = found.maps
  assert name == "final"
  patches = np.asarray(taps["final"])[:, 3:].reshape(2, 4, 4, 16)
  np.testing.assert_allclose(found.maps[name], patches, atol=1e-5)
  weights = attended(model, variables, image)
  assert len(weights) == 4
  wanted = weights[-1].mean(1)[:, 0, 3:].reshape(2, 4, 4)
  np.testing.assert_allclose(found.attention, wanted, rtol=1e-4)


def test_patches_are_averaged_where_the_network_pools_them():
  weights = np.random.default_rng(0).uniform(size=(2, 3, 17, 17))
  noted = {"block0": {"attn": {transformer.ATTENTION: (weights,)}}}
  found = look.last_attention(noted, pooled=False)
  wanted = weights[:, :, 1:, 1:].mean((1, 2)).reshape(2, 4, 4)
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_pooling_query_comes_last():
  fields = {**SMALL, "class_token": False, "global_pool": "map"}
  found, model, variables, image = seen("vit_tiny_patch16_224", **fields)
  *_, last = attended(model, variables, image)
  assert last.shape == (2, 2, 1, 16)
  wanted = last.mean(1)[:, 0].reshape(2, 4, 4)
  np.testing.assert_allclose(found.attention, wanted, rtol=1e-4)


def test_the_order_is_that_of_the_calls():
  ones = np.ones((1, 2, 17, 17))
  noted = {
    "stage4": {
      "block9": {"attn": {transformer.ATTENTION: (ones,)}},
      "block10": {"attn": {transformer.ATTENTION: (2 * ones,)}},
    }
  }
  found = look.last_attention(noted, pooled=True)
  np.testing.assert_array_equal(found, np.full((1, 4, 4), 2))
  assert look.last_attention({"head": {"other": (ones,)}}, True) is None


def test_too_coarse_maps_are_passed_over():
  taps = {
    "stage3": np.zeros((1, 4, 4, 5)),
    "stage4": np.zeros((1, 3, 4, 9)),
    "stem": np.zeros((1, 32, 32, 3)),
  }
  assert list(look.last_map(taps)) == ["stage3"]
  del taps["stage3"]
  assert look.last_map(taps) == {}


def test_a_teacher_that_is_no_flax_network_shows_its_maps_when_asked():
  class Source:
    network = object()

    def __call__(self, frozen, batch):
      gray = batch.image.mean(-1, keepdims=True) + frozen["teacher"]["one"]
      taps = {"feature": gray.mean((1, 2)), "stage4": gray}
      return Teacher(taps, None)

  looks = look.of_teacher(Source(), {"one": jnp.float32(1)})
  image = np.full((3, 4, 4, 3), 51, np.uint8)
  found = looks(image, True)
  np.testing.assert_allclose(found.maps["stage4"], np.full((3, 4, 4, 1), 1.2))
  np.testing.assert_allclose(found.feature, np.full((3, 1), 1.2))
  assert found.attention is None and looks(image, False).maps == {}
