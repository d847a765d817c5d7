"""Which parameters decay, against timm 1.0.31, family by family.

timm's rule (`optim/_param_groups.py`): neither vectors, nor biases, nor what
the model's `no_weight_decay()` names.
"""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

import runs
from kd_jax import config as config_lib
from kd_jax import models, resolve, trees
from kd_jax.build.experiment import experiment
from kd_jax.convert import rules
from kd_jax.models.backbone import variable_shapes
from kd_jax.train.optim import Optim

# What `no_weight_decay` of timm's files says: whole names, parts of names.
NAMES = {
  "vit": ({"pos_embed", "cls_token", "reg_token", "dist_token"}, ()),
  "beit": ({"pos_embed", "cls_token"}, ("relative_position_bias_table",)),
  "eva": ({"pos_embed", "cls_token", "reg_token"}, ()),
  "hiera": ({"pos_embed"}, ()),
  "hybrid": ({"pos_embed", "cls_token", "reg_token", "dist_token"}, ()),
  "maxxvit": (set(), ("rel_pos.",)),
  "sam": ({"pos_embed"}, ()),
  "vitamin": ({"pos_embed", "cls_token", "reg_token", "dist_token"}, ()),
  "swin": (set(), ("relative_position_bias_table",)),
  "swin_v2": (set(), ("cpb_mlp", "logit_scale")),
  "tiny_vit": (set(), ("attention_biases",)),
  "xcit": ({"cls_token"}, ("pos_embed.",)),
}
# One or two small members of every family, with all that is listed above.
MEMBERS = {
  "beit": ("beit_base_patch16_224", {"use_abs_pos_emb": True, "depth": 4}),
  "byobnet": ("repvgg_a0", {}),
  "clip_resnet": ("resnet50_clip", {}),
  "clip_resnet_gap": ("resnet50_clip_gap", {}),
  "convnext": ("convnextv2_atto", {}),
  "densenet": ("densenet121", {}),
  "efficientnet": ("efficientnet_b0", {}),
  "efficientvit": ("efficientvit_b0", {}),
  "eva": ("eva02_tiny_patch14_224", {"depth": 4}),
  "fastvit": ("fastvit_sa12", {}),
  "ghostnet": ("ghostnet_050", {}),
  "hgnet": ("hgnetv2_b0", {}),
  "hybrid": (
    "vit_small_r26_s32_224",
    {"depth": 4, "conv_layers": (1, 1, 1, 1)},
  ),
  "hiera": ("hiera_small_abswin_256", {"stages": (1, 1, 1, 1)}),
  "maxxvit": ("test_coatnet", {"transformer_rel_pos_type": "mlp"}),
  "metaformer": ("caformer_s18", {}),
  "mixer": ("mixer_s32_224", {}),
  "mnasnet": ("mnasnet_small", {}),
  "mobilenet": ("mobilenetv2_035", {}),
  "mobilenetv1": ("mobilenetv1_100", {}),
  "mobilenetv3": ("mobilenetv3_small_050", {}),
  "mobilenetv4": ("mobilenetv4_hybrid_medium", {}),
  "regnet": ("regnety_002", {}),
  "repvit": ("repvit_m0_9", {}),
  "resnet": ("resnet18", {}),
  "resnetv2": ("resnetv2_50x1_bit", {}),
  "sam": ("samvit_base_patch16", {"depth": 4, "global_attn_indexes": [3]}),
  "swin": ("swin_tiny_patch4_window7_224", {}),
  "swin_v2": ("swinv2_tiny_window8_256", {}),
  "tiny_vit": ("tiny_vit_5m_224", {"depths": (1, 1, 1, 1)}),
  "vgg": ("vgg11_bn", {}),
  "vit": ("vit_tiny_patch16_224", {"depth": 4}),
  "vitamin": ("vitamin_small_224", {"depth": 4}),
  "xcit": ("xcit_nano_12_p16_224", {"depth": 4}),
}
CASES = [
  *((family, *member) for family, member in MEMBERS.items()),
  ("maxxvit", "test_maxvit", {}),
  ("vit", "deit_tiny_distilled_patch16_224", {"depth": 4}),
  ("vit", "vit_wee_patch16_reg1_gap_256", {"depth": 4}),
  ("vit", "vit_base_patch16_siglip_224", {"depth": 4}),
]


def decays(name, shape, family):
  """timm's rule."""
  whole, parts = NAMES.get(family, (set(), ()))
  if len(shape) <= 1 or name.endswith(".bias"):
    return False
  return name not in whole and not any(part in name for part in parts)


def shrunk(optim, params):
  """The paths that weight decay alone makes smaller."""
  ones = {path: np.ones((1,) * leaf.ndim) for path, leaf in params.items()}
  tx = optim.transform(10)
  zeros = {path: np.zeros_like(leaf) for path, leaf in ones.items()}
  changes, _ = tx.update(zeros, tx.init(ones), ones)
  return {path for path, change in changes.items() if (change < 0).all()}


def test_every_family_is_here():
  assert set(MEMBERS) == set(resolve.names("models", "VARIANTS"))


@pytest.mark.parametrize(("family", "name", "fields"), CASES)
def test_what_decays_is_what_decays_in_timm(family, name, fields):
  model = models.create_model(name, **fields)
  assert rules.family(model) == family
  entries = rules.entries(model)
  wanted = {
    entry.path
    for theirs, entry in entries.items()
    if entry.path.startswith("params/") and decays(theirs, entry.shape, family)
  }
  params = trees.flatten({"params": variable_shapes(model)["params"]})
  every = Optim(name="sgd", lr=0.1, weight_decay=0.1)
  assert shrunk(every.exempting(model.NO_DECAY), params) == set(params)
  optim = dataclasses.replace(every, decay_all=False)
  assert shrunk(optim.exempting(model.NO_DECAY), params) == wanted
  # An explicit list wins, as in ScaleKD's recipe.
  matrices = {path for path, leaf in params.items() if leaf.ndim > 1}
  explicit = dataclasses.replace(optim, no_decay=())
  assert shrunk(explicit.exempting(model.NO_DECAY), params) == matrices
  whole, parts = NAMES.get(family, (set(), ()))
  assert all(any(part in n for n in entries) for part in parts)
  assert bool(whole | set(parts)) == bool(model.NO_DECAY)


def test_a_run_asks_its_student(tmp_path):
  fields = (
    f"teacher.weights={runs.save_teacher(tmp_path / 'teacher')}",
    "student.name=vit_tiny_patch16_224",
    "optim.decay_all=False",
  )
  config = config_lib.load(str(runs.CONFIG), fields)
  small = {"img_size": 8, "patch_size": 4, "embed_dim": 6, "depth": 4}
  config.student.overrides = ConfigDict({**small, "num_classes": 0})
  found = experiment(config, tmp_path).optim
  assert "cls_token" in found.no_decay
  config.optim.decay_all = True
  assert not experiment(config, tmp_path).optim.no_decay
