"""Writes golden/timm/small_*.npz and facts_*.json: what timm says.

python tests/live/make_goldens.py [FAMILY ...]; needs PyTorch and timm. Weights
are functions of names and shapes, see goldens.py; outputs come from float64.
The facts are the number of parameters and the preprocessing of all members.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import goldens as gw  # noqa: E402 - the folder has to be known first
import small_cases  # noqa: E402
import timm  # noqa: E402

from kd_jax import resolve  # noqa: E402

STORED = 64


# timm computes some things in float32 whatever the model is.
plain_float = torch.Tensor.float
torch.Tensor.float = lambda x: x if x.dtype == torch.float64 else plain_float(x)

# PyTorch's float32 sines differ by the last bit between machines.
for name in ("sin", "cos"):
  plain = getattr(torch.Tensor, name)
  rounded = lambda x, f=plain: f(x.double()).to(x.dtype)  # noqa: E731
  setattr(torch.Tensor, name, rounded)
plain_log = torch.log
torch.log = lambda x: plain_log(x.double()).to(x.dtype)


def make(name, fields, size, scale):
  """(facts, arrays) of one case."""
  model = timm.create_model(name, num_classes=5, **fields).eval()
  shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
  model.load_state_dict(
    {
      k: torch.from_numpy(gw.make_param(k, s, scale=gw.small_scale(k, scale)))
      for k, s in shapes.items()
    }
  )
  x = torch.from_numpy(gw.small_input(size))
  noisy = outputs(model, x.to(torch.float32))
  found = outputs(model.double(), x)
  tensors, arrays = {}, {}
  for key, value in found.items():
    std = float(value.std())
    assert std > 1e-6, (name, key, std)
    noise = float(np.abs(noisy[key] - value).max())
    stride = max(1, value.size // STORED)
    tensors[key] = {
      "shape": list(value.shape),
      "stride": stride,
      "mean": float(value.mean()),
      "std": std,
      "atol": float(f"{max(10 * noise, 1e-5 * std):.1e}"),
    }
    arrays[key] = value.reshape(-1)[::stride]
  return {"shapes": shapes, "tensors": tensors}, arrays


@torch.no_grad()
def outputs(model, x):
  """Maps of all stages or blocks, pooled features and logits; NHWC."""
  features = model.forward_features(x)
  found = {
    "pooled": model.forward_head(features, pre_logits=True),
    "logits": model.forward_head(features),
  }
  maps = model.forward_intermediates(
    x, intermediates_only=True, output_fmt="NCHW"
  )
  for i, y in enumerate(maps):
    found[f"map{i}"] = y.permute(0, 2, 3, 1)
  return {k: v.double().numpy() for k, v in found.items()}


def facts(name):
  """Parameters and what the default weights of a member expect."""
  model = timm.create_model(name, device="meta")
  config = timm.get_pretrained_cfg(name).to_dict()
  kept = ("mean", "std", "interpolation", "crop_pct", "crop_mode", "input_size")
  return {
    "parameters": sum(p.numel() for p in model.parameters()),
    **{k: config[k] for k in kept},
    "num_classes": config["num_classes"],
  }


def write_facts(family):
  """One line per member."""
  names = resolve.symbol("models", family, "VARIANTS")
  lines = [f"{json.dumps(n)}: {json.dumps(facts(n))}" for n in sorted(names)]
  path = gw.FOLDER / f"facts_{family}.json"
  path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
  print(path.name, len(names))


def write_small(family):
  """The cases of one file."""
  cases, arrays = [], {}
  for i, case in enumerate(small_cases.CASES[family]):
    name, fields, size, *scale = case
    facts, found = make(name, fields, size, *(scale or [1.0]))
    cases.append({"case": case, **facts})
    arrays |= {f"{i}_{key}": value for key, value in found.items()}
    print(family, name, max(v["atol"] for v in facts["tensors"].values()))
  path = gw.FOLDER / f"small_{family}.npz"
  np.savez_compressed(path, cases=json.dumps(cases), **arrays)


if __name__ == "__main__":
  for chosen in sys.argv[1:] or {*small_cases.CASES, *small_cases.FACTS}:
    if chosen in small_cases.CASES:
      write_small(chosen)
    if chosen in small_cases.FACTS:
      write_facts(chosen)
