"""A model of timm, and the same model here, with equal weights."""

import jax
import numpy as np
import timm
import torch

from kd_jax import convert, models

RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def timm_model(name, **fields):
  """timm's own initialisation, off zero and one; float32 values."""
  torch.manual_seed(0)
  model = timm.create_model(name, **fields).eval()
  model.drop_rate = 0.0  # of the classifier: no two generators agree
  entries = {**dict(model.named_parameters()), **dict(model.named_buffers())}
  with torch.no_grad():
    for key, value in entries.items():
      if not value.is_floating_point() or key not in model.state_dict():
        continue
      spread = float(value.std()) if value.numel() > 1 else 0.0
      value += 0.1 * (spread or 1.0) * torch.randn_like(value)
      if key.endswith("running_var"):
        value.abs_()
  return model


def arrays(model):
  """The state_dict in float32, as it is stored."""
  state = {k: v.detach().clone() for k, v in model.state_dict().items()}
  return {
    k: v.float().numpy() if v.is_floating_point() else v.numpy()
    for k, v in state.items()
  }


def pair(name, **fields):
  """(timm model in float64, ours, our variables in float64)."""
  theirs = timm_model(name, **fields)
  ours = models.create_model(name, **RAW, **fields)
  variables = convert.from_timm(ours, arrays(theirs))
  variables = jax.tree.map(lambda a: a.astype(np.float64), variables)
  return theirs.double(), ours, variables


def images(size, n=2):
  """(n, size, size, 3) float64 that look normalised."""
  return np.random.default_rng(0).normal(size=(n, size, size, 3))


def nchw(x):
  return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
