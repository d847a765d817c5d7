"""Writes golden/timm/prints_*.npz and students.json, see `prints`.

Run with PYTHONPATH=.:tests where PyTorch and timm are installed:
python tests/live/make_prints.py [FAMILY ...]
"""

import contextlib
import json
import sys
from unittest import mock

import goldens as gw
import numpy as np
import prints
import timm
import torch
from timm.models import efficientvit_mit
from timm.models import hgnet as timm_hgnet
from timm.models import metaformer as timm_metaformer
from timm.models import mlp_mixer as timm_mixer
from timm.models import mobilenetv3 as timm_mobilenetv3
from timm.models import vgg as timm_vgg
from timm.models._efficientnet_builder import decode_arch_def

from kd_jax import convert, models, resolve
from kd_jax.teachers import timm as timm_teacher
from kd_jax.types import STAGES

SMALL_V4 = (
  "er_r1_k3_s2_e2_c8",
  "uir_r1_a3_k5_s2_e2_c8 uir_r1_a3_k3_s1_e2_c8",
  "uir_r1_a5_k0_s2_e2_c16 uir_r1_a0_k0_s1_e2_c16 mqa_r1_k3_h2_s1_v2_d8_c16 "
  "uir_r1_a0_k3_s1_e2_c16",
  "uir_r1_a0_k3_s2_e2_c16 mqa_r1_k3_h3_s1_d4_c16 uir_r1_a3_k0_s1_e2_c16",
  "cn_r1_k1_s1_c24",
)
MLP = {
  "img_size": (24, 40),
  "patch_size": 8,
  "num_blocks": 4,
  "embed_dim": 32,
}
TINY_VIT = {
  "depths": (1, 1, 2, 1),
  "embed_dims": (16, 16, 32, 32),
  "num_heads": (1, 1, 2, 4),
  "window_sizes": (3, 3, 4, 2),
}
TINY = {"embed_dim": 32, "depth": 4, "num_heads": 2}
CASES = {
  "hybrid": (
    ("vit_small_r26_s32_224", {**TINY, "img_size": (64, 96)}, 64, 96),
    ("vit_base_r50_s16_384", {**TINY, "img_size": 32}, 32, 32),
    ("vit_tiny_r_s16_p8_224", {**TINY, "img_size": (64, 32)}, 64, 32),
    (
      "vit_base_mci_224",
      {"depth": 4, "img_size": (32, 48), "mlp_ratio": 1.0},
      32,
      48,
    ),
    ("vit_tiny_r_s16_p8_224", {}, 224, 224),
  ),
  "xcit": (
    ("xcit_nano_12_p16_224", TINY, 64, 96),
    ("xcit_tiny_24_p8_384", {**TINY, "depth": 6, "eta": 0.5}, 40, 64),
    (
      "xcit_small_12_p8_224",
      {**TINY, "global_pool": "avg", "tokens_norm": False},
      40,
      40,
    ),
    ("xcit_nano_12_p16_224", {}, 96, 64),
  ),
  "mixer": tuple(
    (name, {**MLP, "mlp_ratio": ratio}, 24, 40)
    for name, ratio in (
      ("gmixer_12_224", (1.0, 3.0)),
      ("resmlp_24_224", (1.0, 3.0)),
      ("gmlp_ti16_224", (1.0, 3.0)),
    )
  )
  + (("resmlp_12_224", {}, 224, 224),),
  "tiny_vit": (
    ("tiny_vit_5m_224", TINY_VIT, 75, 58),
    (
      "tiny_vit_21m_384",
      {**TINY_VIT, "local_conv_size": 5, "mlp_ratio": 3.0},
      64,
      64,
    ),
    ("tiny_vit_5m_224", {}, 64, 96),
  ),
  "efficientvit": (
    (
      "efficientvit_b1",
      {
        "widths": (8, 8, 8, 16, 16),
        "depths": (1, 2, 1, 1, 1),
        "head_dim": 8,
        "head_widths": (16, 24),
      },
      75,
      58,
    ),
    (
      "efficientvit_l1",
      {
        "widths": (8, 8, 8, 16, 16),
        "depths": (1, 2, 1, 1, 1),
        "head_dim": 8,
        "head_widths": (16, 24),
      },
      75,
      58,
    ),
    ("efficientvit_b0", {}, 64, 64),
  ),
  "efficientnet": (("tinynet_e", {}, 64, 64),),
  "resnet": (
    ("ecaresnet26t", {"layers": (1, 1, 1, 1)}, 75, 58),
    ("resnetaa34d", {"layers": (1, 1, 1, 1)}, 64, 64),
    ("resnetblur50", {"layers": (1, 2, 1, 1), "output_stride": 16}, 75, 58),
    ("seresnextaa101d_32x8d", {"layers": (1, 1, 1, 1)}, 64, 64),
    ("resnetblur18", {}, 64, 75),
  ),
  "vgg": (
    (
      "vgg11_bn",
      {"depths": (1, 1, 1, 2, 1), "widths": (8, 8, 12, 16, 16)},
      75,
      58,
    ),
    (
      "vgg11",
      {"depths": (1, 1, 1, 2, 1), "widths": (8, 8, 12, 16, 16)},
      224,
      256,
    ),
  ),
  "hgnet": (
    (
      "hgnetv2_b0",
      {"stem_chs": (8, 12), "middle": (8, 8, 8, 8), "widths": (8, 16, 24, 32)},
      75,
      58,
    ),
    (
      "hgnet_tiny",
      {
        "stem_chs": (8, 8, 12),
        "middle": (8, 8, 8, 8),
        "widths": (8, 16, 24, 32),
      },
      75,
      58,
    ),
    ("hgnetv2_b0", {}, 64, 64),
  ),
  "densenet": (
    (
      "densenetblur121d",
      {"growth_rate": 8, "block_config": (1, 2, 2, 1)},
      75,
      58,
    ),
    ("densenet161", {"growth_rate": 8, "block_config": (1, 2, 2, 1)}, 75, 58),
    ("densenet121", {}, 64, 64),
  ),
  "metaformer": (
    (
      "caformer_s18",
      {"depths": (1, 1, 1, 1), "dims": (32, 32, 64, 96)},
      75,
      58,
    ),
    (
      "poolformer_s12",
      {"depths": (1, 1, 1, 1), "dims": (32, 32, 64, 96)},
      75,
      58,
    ),
    (
      "poolformerv2_s12",
      {"depths": (1, 1, 1, 1), "dims": (32, 32, 64, 96)},
      75,
      58,
    ),
    (
      "convformer_s18",
      {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
      64,
      64,
    ),
    ("poolformer_s24", {}, 64, 75),
  ),
  "mobilenetv4": (
    (
      "mobilenetv4_hybrid_medium",
      {"arch_def": SMALL_V4, "head_width": 32},
      75,
      58,
    ),
    (
      "mobilenetv4_hybrid_large",
      {
        "arch_def": SMALL_V4,
        "head_width": 32,
        "aa_layer": "blurpc",
        "global_pool": "catavgmax",
      },
      75,
      58,
    ),
    ("mobilenetv4_conv_small_035", {}, 64, 64),
    ("mobilenetv4_conv_aa_medium", {}, 64, 64),
    ("mobilenetv4_hybrid_medium_075", {}, 75, 64),
  ),
  "byobnet": (
    ("test_byobnet", {}, 75, 58),
    ("mobileone_s0", {"output_stride": 16}, 64, 64),
    ("repvgg_a0", {}, 64, 75),
    ("gernet_s", {}, 64, 64),
    ("resnet51q", {}, 64, 64),
    ("gcresnext26ts", {}, 64, 64),
    ("eca_resnext26ts", {}, 64, 64),
    ("regnetz_b16", {"output_stride": 8}, 64, 64),
    ("resnet32ts", {}, 75, 64),
    ("mobilevit_xxs", {}, 75, 58),
    ("mobilevitv2_050", {}, 75, 58),
  ),
  "fastvit": (
    (
      "fastvit_mci0",
      {
        "layers": (1,) * 4,
        "embed_dims": (8, 16, 32, 64),
        "down_patch_size": 5,
      },
      75,
      58,
    ),
    (
      "fastvit_mci3",
      {
        "layers": (1,) * 5,
        "embed_dims": (8, 16, 16, 32, 64),
        "global_pool": "avgmax",
      },
      75,
      130,
    ),
    ("fastvit_t8", {}, 64, 64),
    ("fastvit_sa12", {}, 64, 75),
  ),
  "repvit": (
    ("repvit_m0_9", {"embed_dim": (8, 16, 24, 32), "depth": (1,) * 4}, 75, 58),
    (
      "repvit_m1",
      {
        "embed_dim": (8, 16, 24, 32),
        "depth": (1,) * 4,
        "kernel_size": 5,
        "distillation": False,
      },
      75,
      58,
    ),
    ("repvit_m1_0", {}, 64, 64),
  ),
}


def mobilenetv4(arch, arch_def=None, head_width=1280, **fields):
  """timm's function has no option for the blocks."""
  if arch_def is None:
    return timm.create_model(arch, **fields)
  ours = models.create_model(arch)
  return timm_mobilenetv3.MobileNetV3(
    decode_arch_def([group.split() for group in arch_def]),
    stem_size=ours.stem_size,
    num_features=head_width,
    head_norm=True,
    act_layer=timm.layers.get_act_layer(ours.act_layer),
    layer_scale_init_value=ours.layer_scale_init_value or None,
    **fields,
  )


def metaformer(arch, num_classes, **fields):
  """timm's functions refuse fields that they set themselves."""

  def build(variant, pretrained, **given):
    del variant, pretrained
    return timm_metaformer.MetaFormer(**{**given, **fields})

  with mock.patch.object(timm_metaformer, "_create_metaformer", build):
    return getattr(timm_metaformer, arch)(num_classes=num_classes)


def mixer(arch, num_classes, **fields):
  """timm's functions refuse fields that they set themselves."""

  def build(variant, pretrained, **given):
    del variant, pretrained
    given = {**given, **fields}
    # The other blocks have one MLP.
    if "block_layer" in given and fields:
      given["mlp_ratio"] = fields["mlp_ratio"][1]
    return timm_mixer.MlpMixer(**given)

  with mock.patch.object(timm_mixer, "_create_mixer", build):
    return getattr(timm_mixer, arch)(num_classes=num_classes)


def hgnet(arch, num_classes, **fields):
  """timm has no options for widths."""
  ours = models.create_model(arch, **fields)
  config = {"stem_type": ours.stem_type, "stem_chs": list(ours.stem_chs)}
  width = ours.stem_chs[-1]
  for k in range(4):
    out = ours.widths[k]
    config[f"stage{k + 1}"] = [
      width,
      ours.middle[k],
      out,
      ours.depths[k],
      k > 0,
      ours.light[k],
      ours.kernel_sizes[k],
      ours.layer_num,
    ]
    width = out
  return timm_hgnet.HighPerfGpuNet(
    config, num_classes=num_classes, use_lab=ours.use_lab
  )


def vgg(arch, num_classes, depths, widths):
  """timm has no options for these."""
  config = []
  for depth, width in zip(depths, widths, strict=True):
    config += [width] * depth + ["M"]
  norm = torch.nn.BatchNorm2d if arch.endswith("_bn") else None
  return timm_vgg.VGG(config, num_classes=num_classes, norm_layer=norm)


BUILDERS = {
  "mixer": mixer,
  "vgg": vgg,
  "hgnet": hgnet,
  "metaformer": metaformer,
  "mobilenetv4": mobilenetv4,
}


def outputs(model, x):
  """{tap: array}, maps NHWC."""
  with torch.no_grad(), exact():
    features = model.forward_features(x)
    found = {
      "logits": model.forward_head(features),
      "pooled": model.forward_head(features, pre_logits=True),
    }
    stages = model.forward_intermediates(
      x, intermediates_only=True, output_fmt="NCHW"
    )
  places = timm_teacher.stages_of(len(stages))
  if isinstance(model, timm_vgg.VGG):
    # The first of six is at a stride of 1.
    places = {name: i + 1 for i, name in enumerate(STAGES[:-1])}
  for tap, i in places.items():
    found[tap] = stages[i].permute(0, 2, 3, 1)
  return {k: v.numpy() for k, v in found.items()}


@contextlib.contextmanager
def exact():
  """timm's linear attention casts to float32; here it must not.

  PyTorch's float32 sines differ by the last bit between machines.
  """

  def attend(self, q, k, v):
    y = q @ (k.transpose(-1, -2) @ v)
    return y[..., :-1] / (y[..., -1:] + self.eps)

  with contextlib.ExitStack() as stack:
    attention = efficientvit_mit.LiteMLA
    stack.enter_context(mock.patch.object(attention, "_attn", attend))
    for name in ("sin", "cos"):
      plain = getattr(torch.Tensor, name)
      rounded = lambda x, f=plain: f(x.double()).to(x.dtype)  # noqa: E731
      stack.enter_context(mock.patch.object(torch.Tensor, name, rounded))
    yield


def load(model):
  """Gives the model the weights of `prints`, in float64."""
  shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
  made = prints.state_dict(shapes)
  model.load_state_dict({k: torch.from_numpy(v) for k, v in made.items()})
  return model.double().eval()


def write(family):
  """The file of one family."""
  arrays = {"cases": json.dumps(CASES[family])}
  build = BUILDERS.get(family, timm.create_model)
  for i, (arch, fields, *size) in enumerate(CASES[family]):
    model = load(build(arch, num_classes=prints.CLASSES, **fields))
    x = prints.images(*size).transpose(0, 3, 1, 2)
    for tap, value in outputs(model, torch.from_numpy(x.copy())).items():
      arrays[f"{i}_{tap}"] = prints.of(value)
      print(family, arch, tap, value.shape, f"{value.std():.3g}")
  np.savez_compressed(gw.FOLDER / f"prints_{family}.npz", **arrays)


def facts(name):
  """Number of parameters, and how images are prepared."""
  with torch.device("meta"):
    parameters = timm.create_model(name).parameters()
    count = sum(p.numel() for p in parameters)
  config = timm.get_pretrained_cfg(name)
  known = {k: getattr(config, k) for k in convert.pretrained.FACTS}
  classes = config.num_classes
  return {"parameters": count, "num_classes": classes, **known}


def _lines(known):
  """JSON with a line per variant."""
  parts = []
  for family, names in sorted(known.items()):
    rows = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in names.items()]
    parts.append(f" {json.dumps(family)}: {{\n" + ",\n".join(rows) + "\n }")
  return "{\n" + ",\n".join(parts) + "\n}\n"


def main(families):
  path = gw.FOLDER / "students.json"
  known = json.loads(path.read_text()) if path.exists() else {}
  for family in families or CASES:
    write(family)
    names = resolve.symbol("models", family, "VARIANTS")
    known[family] = {name: facts(name) for name in sorted(names)}
  path.write_text(_lines(known))


if __name__ == "__main__":
  main(sys.argv[1:])
