"""Small and odd members of all families against timm, in float64."""

import jax
import numpy as np
import pytest
import timm_pair
import torch
from timm.utils.model import reparameterize_model

from kd_jax import convert, models, trees
from kd_jax.models import fuse
from kd_jax.models.blocks.tokens import patches
from kd_jax.teachers import timm as timm_teacher

CONV = 64
VIT = {
  "img_size": 32,
  "patch_size": 8,
  "embed_dim": 32,
  "depth": 4,
  "num_heads": 2,
}
COAT = {
  "img_size": 64,
  "embed_dim": (32, 32, 64, 64),
  "depths": (1, 1, 1, 1),
  "stem_width": (16, 32),
}
TINY_VIT = {
  "depths": (1, 1, 2, 1),
  "embed_dims": (32, 32, 64, 64),
  "num_heads": (1, 2, 2, 4),
  "window_sizes": (3, 3, 4, 2),
  "drop_path_rate": 0.0,
}
XCIT = {"embed_dim": 32, "depth": 4, "num_heads": 2}
HIERA = {"img_size": 64, "embed_dim": 16, "stages": (1, 1, 1, 1)}
SAM = {**VIT, "window_size": 3, "global_attn_indexes": (1, 3)}
CASES = (
  ("efficientvit_b0", 75, {}),
  ("efficientvit_l1", CONV, {"depths": (1, 1, 1, 1, 1)}),
  ("ecaresnet26t", 75, {}),
  ("resnetaa34d", CONV, {}),
  ("resnetblur18", 75, {}),
  ("tinynet_e", CONV, {}),
  ("hgnetv2_b0", 75, {}),
  ("hgnet_tiny", CONV, {}),
  ("densenetblur121d", 75, {"growth_rate": 8, "block_config": (1, 2, 2, 1)}),
  ("caformer_s18", 75, {}),
  ("poolformer_s12", CONV, {}),
  ("poolformerv2_s12", 75, {}),
  ("resnet10t", CONV, {}),
  ("resnet18d", CONV, {"output_stride": 8}),
  ("resnet18", CONV, {"output_stride": 16}),
  ("resnet18", 75, {"output_stride": 8}),
  ("resnet50", 75, {"output_stride": 16}),
  ("resnet50", CONV, {"output_stride": 8}),
  ("regnety_002", 75, {"output_stride": 16}),
  ("regnety_002", CONV, {"output_stride": 8}),
  ("mobilenetv2_050", 75, {"output_stride": 16}),
  ("mobilenetv2_050", CONV, {"output_stride": 8}),
  ("seresnext26t_32x4d", CONV, {"layers": (1, 1, 1, 1)}),
  ("resnext50d_32x4d", 75, {"layers": (1, 2, 1, 1)}),
  ("resnetrs50", CONV, {"layers": (1, 1, 1, 1)}),
  ("mobilenetv1_100h", CONV, {}),
  ("mobilenetv2_110d", 75, {}),
  ("mobilenetv3_small_050", CONV, {}),
  ("tf_mobilenetv3_large_minimal_100", 75, {}),
  ("lcnet_035", CONV, {}),
  ("fbnetv3_b", CONV, {}),
  ("repvit_m0_9", 75, {"depth": (1, 1, 2, 1)}),
  ("repvit_m1", CONV, {"depth": (1, 1, 2, 1)}),
  ("fastvit_t8", 75, {"layers": (1, 1, 1, 1)}),
  ("fastvit_mci0", CONV, {"layers": (1, 1, 1, 1)}),
  ("fastvit_mci3", 130, {"layers": (1, 1, 1, 1, 1)}),
  ("test_byobnet", 75, {}),
  ("mobileone_s0", CONV, {}),
  ("mobilevit_xxs", 75, {}),
  ("mobilevit_xxs", 96, {"output_stride": 16}),
  ("mobilevitv2_050", 75, {}),
  ("repvgg_a0", 75, {}),
  ("gernet_s", CONV, {"output_stride": 16}),
  ("mobilenetv4_conv_small_050", 75, {}),
  ("mobilenetv4_conv_blur_medium", CONV, {}),
  ("mobilenetv4_hybrid_medium_075", 75, {}),
  ("mnasnet_small", CONV, {}),
  ("semnasnet_050", 75, {}),
  ("fbnetc_100", CONV, {}),
  ("efficientnet_lite0", CONV, {}),
  ("tf_efficientnet_b0", 75, {}),
  ("tf_efficientnetv2_b0", CONV, {}),
  ("efficientnet_es", CONV, {}),
  ("regnetx_002", CONV, {}),
  ("regnety_002", 75, {}),
  ("convnext_atto", CONV, {}),
  ("convnext_atto_ols", CONV, {}),
  ("convnextv2_atto", 75, {}),
  ("convnext_tiny_hnf", CONV, {"depths": (1, 1, 1, 1)}),
  ("resnetv2_50x1_bit", 75, {}),
  ("resnet50_clip", 224, {}),
  ("resnet50_clip_gap", CONV, {}),
  ("vit_tiny_patch16_224", 32, VIT),
  ("vit_wee_patch16_reg1_gap_256", 32, VIT),
  ("vit_base_patch16_siglip_224", 32, VIT),
  ("vit_base_patch16_clip_quickgelu_224", 32, VIT),
  ("vit_small_patch14_reg4_dinov2", 32, VIT),
  ("deit_tiny_distilled_patch16_224", 32, VIT),
  ("deit3_small_patch16_224", 32, VIT),
  ("beit_base_patch16_224", 32, VIT),
  ("beitv2_base_patch16_224", 32, VIT),
  ("eva02_tiny_patch14_224", 32, VIT),
  ("eva02_base_patch16_clip_224", 32, VIT),
  ("vit_small_patch16_dinov3", 32, VIT),
  ("vit_7b_patch16_dinov3", 48, VIT),
  ("vit_large_patch16_sapiens2", 32, {**VIT, "num_kv_heads": (2, 1, 1, 2)}),
  ("vit_small_patch16_rope_ape_224", 32, VIT),
  ("vit_small_patch16_rope_mixed_224", 32, VIT),
  ("vit_pe_core_base_patch16_224", 32, {**VIT, "attn_pool_num_heads": 4}),
  ("vit_pe_lang_large_patch14_448", 32, VIT),
  ("aimv2_large_patch14_224", 32, VIT),
  ("beit3_base_patch16_224", 32, VIT),
  ("vit_base_patch16_xp_224", 32, VIT),
  ("vit_base_patch16_rpn_224", 32, VIT),
  ("vit_small_patch16_18x2_224", 32, VIT),
  ("vit_dwee_patch16_reg1_gap_256", 32, VIT),
  ("samvit_base_patch16", 32, SAM),
  ("samvit_base_patch16_224", 32, SAM),
  ("hiera_small_224", 64, HIERA),
  ("hiera_small_abswin_256", 64, HIERA),
  ("vitamin_small_224", 32, {"img_size": 32, "depth": 4}),
  ("coatnet_0_rw_224", 64, COAT),
  ("maxvit_tiny_rw_224", 64, COAT),
  ("maxxvitv2_nano_rw_256", 64, COAT),
  ("mixer_s16_224", 32, {"img_size": 32}),
  ("ghostnet_050", 75, {}),
  ("ghostnetv2_100", 75, {}),
  ("ghostnetv3_050", 75, {}),
  ("gmixer_12_224", 32, {"img_size": 32}),
  ("resmlp_12_224", 32, {"img_size": 32}),
  ("gmlp_ti16_224", 32, {"img_size": 32}),
  ("vit_tiny_r_s16_p8_224", 64, {**XCIT, "img_size": 64}),
  ("vit_small_r26_s32_224", 64, {**XCIT, "img_size": 64}),
  ("vit_base_r50_s16_384", 64, {**XCIT, "img_size": 64}),
  ("vit_base_mci_224", 32, {"img_size": 32, "depth": 4}),
  ("tiny_vit_5m_224", 75, TINY_VIT),
  ("tiny_vit_21m_224", 64, TINY_VIT),
  ("xcit_nano_12_p16_224", 64, XCIT),
  ("xcit_tiny_24_p8_384", 40, {**XCIT, "eta": 0.5}),
  ("swin_tiny_patch4_window7_224", 224, {"depths": (1, 1, 2, 1)}),
  ("swin_s3_tiny_224", 224, {"depths": (1, 2, 1, 1)}),
  ("swinv2_tiny_window8_256", 256, {"depths": (1, 1, 2, 1)}),
)
BRANCHED = ("ghostnetv3", "repvit", "fastvit", "mobileone", "repvgg")
MERGED = tuple(c for c in CASES if c[0].startswith(BRANCHED))
ROUGH = ("swin", "rope", "_pe_", "_d", "efficientvit", "xcit")
TRAINED = (
  ("efficientvit_b0", CONV, {}),
  ("hgnetv2_b0", CONV, {}),
  ("densenet121", CONV, {"growth_rate": 8, "block_config": (1, 2, 2, 1)}),
  ("caformer_s18", CONV, {}),
  ("test_byobnet", CONV, {}),
  ("repvgg_a0", CONV, {}),
  ("mobilevit_xxs", CONV, {}),
  ("mobilevitv2_050", CONV, {}),
  (
    "fastvit_sa12",
    CONV,
    {"layers": (1, 1, 1, 1), "layer_scale_init_value": 0.5},
  ),
  ("repvit_m0_9", CONV, {"depth": (1, 1, 2, 1)}),
  ("repvit_m1", CONV, {"depth": (1, 1, 2, 1)}),
  ("mobilenetv4_hybrid_medium_075", CONV, {}),
  ("mobilenetv2_050", CONV, {}),
  ("seresnet18", CONV, {"layers": (1, 1, 1, 1)}),
  ("convnextv2_atto", CONV, {"depths": (1, 1, 1, 1)}),
  ("regnety_002", CONV, {}),
  ("vit_tiny_patch16_224", 32, VIT),
  ("vit_small_plus_patch16_dinov3_qkvb", 32, VIT),
  ("vit_small_patch16_rope_mixed_ape_224", 32, VIT),
  ("vit_pe_core_base_patch16_224", 32, {**VIT, "attn_pool_num_heads": 4}),
  ("samvit_base_patch16", 32, SAM),
  ("coatnet_0_rw_224", 64, COAT),
  ("maxvit_tiny_rw_224", 64, COAT),
  ("vitamin_small_224", 32, {"img_size": 32, "depth": 4}),
  ("hiera_small_abswin_256", 64, HIERA),
  ("ghostnetv2_100", CONV, {}),
  ("ghostnetv3_050", CONV, {}),
  ("vit_small_r26_s32_224", 64, {**XCIT, "img_size": 64}),
  ("vit_base_mci_224", 32, {"img_size": 32, "depth": 4}),
  ("tiny_vit_5m_224", 64, TINY_VIT),
  ("gmixer_12_224", 32, {"img_size": 32}),
  ("resmlp_12_224", 32, {"img_size": 32}),
  ("gmlp_ti16_224", 32, {"img_size": 32}),
  ("xcit_nano_12_p16_224", 64, XCIT),
  ("aimv2_large_patch14_224", 32, VIT),
  ("vit_dpwee_patch16_reg1_gap_256", 32, {**VIT, "qk_norm": True}),
  (
    "swinv2_tiny_window8_256",
    256,
    {"depths": (1, 1, 2, 1), "drop_path_rate": 0.0},
  ),
)


def as_map(model, tap, size):
  """Tokens as maps; maps as they are."""
  if tap.ndim == 4:
    return tap
  grid = patches.grid_of((size, size), patches.pair(model.patch_size))
  prefix = getattr(model, "num_prefix_tokens", 0)
  return patches.tokens_to_map(tap, prefix, grid)


@pytest.mark.parametrize(("name", "size", "fields"), CASES)
def test_outputs(name, size, fields):
  x = timm_pair.images(size)
  with jax.enable_x64(True):
    theirs, ours, variables = timm_pair.pair(name, num_classes=7, **fields)
    taps = jax.device_get(jax.jit(ours.apply)(variables, x))
  with torch.no_grad():
    features = theirs.forward_features(timm_pair.nchw(x))
    want = {
      "logits": theirs.forward_head(features),
      "pooled": theirs.forward_head(features, pre_logits=True),
    }
    stages = theirs.forward_intermediates(
      timm_pair.nchw(x), intermediates_only=True, output_fmt="NCHW"
    )
  for tap, i in timm_teacher.stages_of(len(stages)).items():
    taps[tap] = as_map(ours, taps[tap], size)
    want[tap] = stages[i].permute(0, 2, 3, 1)
  for tap, value in want.items():
    value = value.numpy()
    assert np.ptp(value) > 0
    gap = np.abs(taps[tap] - value).max() / np.abs(value).max()
    # timm has some numbers in float32 always: sines, biases of Swin, shares,
    # EfficientViT's sums.
    rough = any(part in name for part in ROUGH)
    near = 1e-6 if rough else 1e-10
    assert gap < near, (tap, gap)


@pytest.mark.parametrize(("name", "size", "fields"), TRAINED)
def test_training_step(name, size, fields):
  """All gradients and all running statistics after one step."""

  def loss(params, stats):
    taps, new = ours.apply(
      {"params": params, **stats}, x, train=True, mutable=["batch_stats"]
    )
    return (taps["logits"] ** 2).mean(), new

  x = timm_pair.images(size, n=4)
  with jax.enable_x64(True):
    theirs, ours, variables = timm_pair.pair(name, num_classes=7, **fields)
    params = variables.pop("params")
    step = jax.jit(jax.grad(loss, has_aux=True))
    grads, new = jax.device_get(step(params, variables))
  theirs.train()
  (theirs(timm_pair.nchw(x)) ** 2).mean().backward()
  state = timm_pair.arrays(theirs)
  for key, value in theirs.named_parameters():
    state[key] = value.grad.float().numpy()
  want = convert.from_timm(ours, state)
  found = trees.flatten({"params": grads, **new})
  wanted = trees.flatten(want)
  assert set(found) == set(wanted)
  # Some gradients are zero but for rounding: a norm follows.
  least = 1e-6 * max(np.abs(value).max() for value in wanted.values())
  for path, value in wanted.items():
    scale = max(np.abs(value).max(), least)
    assert np.abs(found[path] - value).max() < 1e-5 * scale, path


@pytest.mark.parametrize(("name", "size", "fields"), MERGED)
def test_merged_tensors_are_those_of_timm(name, size, fields):
  del size
  theirs = timm_pair.timm_model(name, num_classes=7, **fields)
  ours = models.create_model(name, num_classes=7, **fields)
  variables = convert.from_timm(ours, timm_pair.arrays(theirs))
  found = convert.to_timm(*fuse.merge(ours, variables))
  wanted = timm_pair.arrays(reparameterize_model(theirs))
  assert set(found) == set(wanted)
  for key, want in wanted.items():
    gap = np.abs(found[key] - want).max()
    assert gap <= 1e-5 * np.abs(want).max(), key
