"""What is special to TinyViT, XCiT, MobileViT and ViTs behind ResNets."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import zoo
from families import FAMILIES

from kd_jax import convert, models
from kd_jax.models.byob import mobilevit
from kd_jax.models.tinyvit import blocks as tiny_vit


def test_places_share_the_bias_of_their_distance():
  found = tiny_vit.offsets(3)
  assert found.shape == (9, 9) and (found == found.T).all()
  np.testing.assert_array_equal(found[0], np.arange(9))
  # The middle to its neighbours: down, right, and both.
  np.testing.assert_array_equal(found[4, [1, 7, 3, 5]], [3, 3, 1, 1])
  assert set(found[4, [0, 2, 6, 8]]) == {4}


def test_patches_of_a_map():
  x = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
  y = mobilevit.cut(x, 2)
  assert y.shape == (2, 4, 6, 3)
  # Place 1 of a patch is its upper right pixel; patches go row by row.
  np.testing.assert_array_equal(y[:, 1, 4], x[:, 2, 3])
  np.testing.assert_array_equal(mobilevit.join(y, 2, (4, 6)), x)


def test_original_files_of_xcit():
  name, fields, *_ = FAMILIES["xcit"]
  model = models.create_model(name, **fields)
  wanted = zoo.drawn(model)
  file = {}
  for key, value in convert.to_timm(model, wanted).items():
    if key.startswith("cls_attn") and ".attn." in key and ".proj." not in key:
      head, which, tail = key.rsplit(".", 2)
      file.setdefault(f"{head}.qkv.{tail}", {})[which] = value
    else:
      file[key.replace("pos_embed.", "pos_embeder.")] = value
  file = {
    k: np.concatenate([v[i] for i in "qkv"]) if isinstance(v, dict) else v
    for k, v in file.items()
  }
  found = convert.from_timm(model, file)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize(
  ("name", "fields", "message"),
  [
    ("vit_base_mci_224", {"patch_size": 32}, "patch_size is 32; allowed"),
    ("vit_base_r50_s16_384", {"patch_size": 8}, "a multiple of 16"),
    ("vit_base_r50_s16_384", {"patch_size": (16, 32)}, "are squares"),
    ("vit_base_r50_s16_384", {"conv_layers": (1,) * 5}, "at most 4"),
    ("mobilevit_xxs", {"blocks": ("mobilevit_c8",)}, "KIND one of .*vit2"),
    ("tiny_vit_5m_224", {"num_heads": (2, 4, 3, 1)}, "num_heads is .*divide"),
    ("tiny_vit_5m_224", {"local_conv_size": 4}, "local_conv_size is 4; .* odd"),
    ("tiny_vit_5m_224", {"depths": (1, 2)}, "depths is .* 4 positive"),
    ("tiny_vit_5m_224", {"mlp_ratio": 0.0}, "mlp_ratio is 0.0; it must"),
    ("xcit_nano_12_p8_224", {"patch_size": 4}, "patch_size is 4; allowed"),
    ("xcit_nano_12_p8_224", {"depth": 3}, "depth is 3; it must be 4 or more"),
    ("xcit_nano_12_p8_224", {"embed_dim": 12}, "embed_dim is 12; .* of 8"),
    ("xcit_nano_12_p8_224", {"num_heads": 3}, "num_heads is 3; it must divide"),
    ("xcit_nano_12_p8_224", {"mlp_ratio": 0.0}, "mlp_ratio is 0.0; it must"),
    ("xcit_nano_12_p8_224", {"global_pool": "max"}, "global_pool is 'max'"),
  ],
)
def test_wrong_options(name, fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model(name, **fields)
