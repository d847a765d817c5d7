r"""What recipes take on TPU slices, compiled and never run: one table.

Command: python -m kd_jax.main --config configs/topologies.py \
  --config.recipe=configs/kdep_r18.py --config.overrides="('dtype=bfloat16',)" \
  --config.topologies="('v5e-8','v5e-256')" --config.batch_per_chip="(64,128)"
The table of docs/scale.md: configs/topologies.py:docs, hours on two cores.

Needs libtpu, no TPU: pip install -r requirements-tpu.txt. Every cell is a dry
run of its own; a cell that is done is not compiled again, and one that fails
says why. Expected: results.json, results.md and report.html in the workdir.
"""

from ml_collections import ConfigDict

from configs.common import choose

HALF = "dtype=bfloat16"
# A ViT of 7 billion parameters: DINOv2's giant, as wide as DINOv3's largest.
SEVEN_B = (
  HALF,
  "student.name=resnet50",
  "teacher.name=vit_giant_patch14_dinov2",
  "teacher.weights=",
  "teacher.source=random",
  "teacher.overrides.img_size=224",
  "teacher.overrides.embed_dim=4096",
  "teacher.overrides.num_heads=32",
  "teacher.overrides.mlp_ratio=4.0",
  "teacher.param_dtype=bfloat16",
  "teacher.fsdp=True",
)
STAGES = "configs/stagewise_r18.py"
BANK = ("teacher.weights=configs/bank_fkd.py",)
ROWS = (
  ("KDEP, ResNet-50 to ResNet-18", "configs/kdep_r18.py", (HALF,)),
  ("KDEP, ResNet-50 to MobileNetV2", "configs/kdep_mnv2.py", (HALF,)),
  ("ScaleKD, Swin-L to ResNet-50", "configs/scalekd_r50.py", (HALF,)),
  ("FKD from a bank, ResNet-50", "configs/fkd_r50.py", (HALF, *BANK)),
  ("stage-wise, ResNet-34 to ResNet-18", STAGES, (HALF,)),
  ("KDEP, ViT of 7B to ResNet-50", "configs/kdep_r18.py", SEVEN_B),
)


def get_config(variant: str = "") -> ConfigDict:
  """One recipe; `docs` has all of the page."""
  choose(variant, ("", "docs", "smoke"))
  config = ConfigDict(
    {
      "task": "topologies",
      "recipe": "configs/kdep_r18.py",  # FILE[:variant]
      "overrides": (HALF,),  # of its fields, as on the command line
      # ((label, recipe, overrides), ...) instead of the one above.
      "rows": (),
      "topologies": ("v5e-8", "v5e-256", "v6e-64"),
      "batch_sizes": (),  # global; () is the recipe's own
      "batch_per_chip": (),  # beside them, for every chip
      "price_per_chip_hour": 0.0,
      "timeout": 3600.0,  # seconds of a cell
    }
  )
  if variant == "docs":
    config.rows = ROWS
    config.batch_per_chip = (64,)
  if variant == "smoke":
    config.recipe = "configs/kdep_r18.py:smoke"
    config.topologies = ("v5e-8",)
  return config.lock()
