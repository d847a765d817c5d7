"""DINOv3 ViT-B/16 and the mobile students that learn from it."""

from ml_collections import ConfigDict

NAME = "vit_base_patch16_dinov3"
WEIGHTS = "timm/vit_base_patch16_dinov3.lvd1689m"


# Name, the tap of the last map, and what makes it small.
STUDENTS = {
  "": (
    "mobilenetv4_conv_small",
    "stage4",
    {
      "arch_def": (
        "cn_r1_k3_s2_c8",
        "cn_r1_k3_s2_c8",
        "uir_r1_a5_k5_s2_e2_c8",
        "uir_r1_a3_k3_s2_e2_c16",
        "cn_r1_k1_s1_c24",
      ),
      "head_width": 32,
    },
  ),
  "repvit": (
    "repvit_m1_0",
    "stage4",
    {"embed_dim": (8, 8, 16, 16), "depth": (1, 1, 2, 1)},
  ),
  "fastvit": (
    "fastvit_t8",
    "final",
    {"layers": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 32)},
  ),
}


def teacher(config: ConfigDict) -> None:
  """DINOv3 ViT-B/16."""
  config.teacher.update({"name": NAME, "weights": WEIGHTS})


def folder(config: ConfigDict) -> None:
  """Images of a folder, and no evaluation that reads labels."""
  config.data = ConfigDict({"name": "folder", "dir": ""})
  config.eval.evals = ()


def smaller(config: ConfigDict, kind: str) -> None:
  """A tiny pair, drawn weights, images of 64 pixels.

  Args:
    config: one whose other parts are those of a smoke test.
    kind: of `STUDENTS`.
  """
  config.preprocess.image_size = 64
  config.teacher.update({"name": NAME, "weights": "", "source": "random"})
  overrides = {"img_size": 64, "embed_dim": 16, "depth": 4, "num_heads": 2}
  config.teacher.overrides = ConfigDict(overrides)
  *_, small = STUDENTS[kind]
  config.student.overrides = ConfigDict({**small, "num_classes": 0})
