"""Writes golden/timm/small_*.npz and facts_*.json: what timm says.

python tests/live/make_small.py [FAMILY ...]; needs PyTorch and timm. See small.
"""

import contextlib
import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import goldens as gw  # noqa: E402 - the folders have to be known first
import small  # noqa: E402
import small_cases  # noqa: E402
import timm  # noqa: E402
import timm_builders  # noqa: E402
import zoo  # noqa: E402
from timm.models import efficientvit_mit  # noqa: E402
from timm.models import vgg as timm_vgg  # noqa: E402

from kd_jax import convert, models, resolve  # noqa: E402
from kd_jax.teachers import timm as timm_teacher  # noqa: E402
from kd_jax.types import STAGES  # noqa: E402

# These are of members of many families.
NO_FACTS = ("whole",)

_float, _log = torch.Tensor.float, torch.log
_sin, _cos = torch.Tensor.sin, torch.Tensor.cos


def attend(self, q, k, v):
  """timm's linear attention, which casts to float32."""
  y = q @ (k.transpose(-1, -2) @ v)
  return y[..., :-1] / (y[..., -1:] + self.eps)


@contextlib.contextmanager
def exact():
  """timm computes some things in float32 whatever the model is.

  PyTorch's float32 sines differ by the last bit between machines.
  """
  tensor = torch.Tensor
  keep = lambda x: x if x.dtype == torch.float64 else _float(x)  # noqa: E731
  wide = lambda f: lambda x: f(x.double()).to(x.dtype)  # noqa: E731
  with contextlib.ExitStack() as stack:
    for owner, name, value in (
      (tensor, "float", keep),
      (tensor, "sin", wide(_sin)),
      (tensor, "cos", wide(_cos)),
      (torch, "log", wide(_log)),
      (efficientvit_mit.LiteMLA, "_attn", attend),
    ):
      stack.enter_context(mock.patch.object(owner, name, value))
    yield


def make(family, name, fields, size, scale):
  """(facts, arrays) of one case."""
  build = timm_builders.BUILDERS.get(family, timm.create_model)
  with exact():  # some make their sines here
    model = build(name, num_classes=small.CLASSES, **fields).eval()
  shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
  tensors = small.state_dict(shapes, scale)
  model.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()})
  x = torch.from_numpy(small.images(*size).transpose(0, 3, 1, 2).copy())
  places = places_of(name, fields)
  noisy = outputs(model, x.to(torch.float32), places)
  found = outputs(model.double(), x, places)
  noise, arrays = {}, {}
  for tap, value in found.items():
    assert value.std() > 1e-6, (name, tap)
    arrays[tap] = small.of(value)
    gap = np.abs(small.of(noisy[tap]) - arrays[tap]).max()
    noise[tap] = float(f"{gap / np.abs(arrays[tap]).max():.1e}")
  return {"shapes": shapes, "noise": noise}, arrays


def places_of(name, fields):
  """Whether maps of timm's are of blocks or of stages, as they are here."""
  model = models.create_model(name, **zoo.tuples(fields))
  return sorted(tap for tap in zoo.shapes(model)[0] if tap.startswith("block"))


@torch.no_grad()
def outputs(model, x, blocks):
  """{tap: array}, maps NHWC."""
  with exact():
    features = model.forward_features(x)
    found = {
      "logits": model.forward_head(features),
      "pooled": model.forward_head(features, pre_logits=True),
    }
    maps = model.forward_intermediates(
      x, intermediates_only=True, output_fmt="NCHW"
    )
  places = timm_teacher.stages_of(len(maps))
  if isinstance(model, timm_vgg.VGG):
    # The first of six is at a stride of 1.
    places = {name: i + 1 for i, name in enumerate(STAGES[:-1])}
  if len(blocks) == len(maps):
    places = {name: i for i, name in enumerate(blocks)}
  for tap, i in places.items():
    found[tap] = maps[i].permute(0, 2, 3, 1)
  return {k: v.double().numpy() for k, v in found.items()}


def facts(name):
  """Number of parameters, and how images are prepared."""
  with torch.device("meta"):
    parameters = timm.create_model(name).parameters()
    count = sum(p.numel() for p in parameters)
  config = timm.get_pretrained_cfg(name)
  known = {k: getattr(config, k) for k in convert.pretrained.FACTS}
  classes = config.num_classes
  return {"parameters": count, "num_classes": classes, **known}


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
    case = (name, fields, size, *(scale or [1.0]))
    facts, found = make(family, *case)
    cases.append({"case": case, **facts})
    arrays |= {f"{i}_{key}": value for key, value in found.items()}
    print(family, name, max(facts["noise"].values()))
  path = gw.FOLDER / f"small_{family}.npz"
  np.savez_compressed(path, cases=json.dumps(cases), **arrays)


if __name__ == "__main__":
  for chosen in sys.argv[1:] or small_cases.CASES:
    write_small(chosen)
    if chosen not in NO_FACTS:
      write_facts(chosen)
