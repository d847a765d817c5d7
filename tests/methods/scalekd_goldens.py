"""Goldens of ScaleKD, in the layout used here."""

import pathlib

import numpy as np

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
TOLERANCE = 2e-5
NAMES = {"proxy": "s3", "final": "s4"}
DENSE = {
  "proj_pos.0": "query_proj",
  "pos_attention.q": "q",
  "pos_attention.k": "k",
  "pos_attention.v": "v",
  "pos_attention.proj": "proj",
  "ffn.layers.0.0": "fc1",
  "ffn.layers.1": "fc2",
}
NORMS = {"proj_student.1": "conv_norm", "norm": "norm"}


def read(name):
  with np.load(GOLDEN / f"scalekd_{name}.npz") as file:
    return dict(file)


def close(got, want):
  """Largest error relative to the largest value, or to 1."""
  assert np.any(want != 0)
  error = np.abs(np.asarray(got) - want).max() / max(1, np.abs(want).max())
  assert error < TOLERANCE, error


def nhwc(x):
  return np.moveaxis(x, 1, -1)


def dense(golden, name):
  kernel = golden[f"{name}.weight"]
  kernel = kernel.reshape(kernel.shape[:2]).T
  return {"kernel": kernel, "bias": golden[f"{name}.bias"]}


def conv_bias(golden, prefix="w/"):
  return golden[prefix + "proj_student.0.bias"]


def affine(golden, name):
  return {"scale": golden[f"{name}.weight"], "bias": golden[f"{name}.bias"]}


def projector(golden, prefix="w/"):
  """Variables of a projector from the authors' names."""
  params = {to: dense(golden, prefix + of) for of, to in DENSE.items()}
  params |= {to: affine(golden, prefix + of) for of, to in NORMS.items()}
  kernel = golden[prefix + "proj_student.0.weight"].transpose(2, 3, 1, 0)
  params["conv"] = {"kernel": kernel, "bias": conv_bias(golden, prefix)}
  del params["k"]["bias"]  # softmax does not see it
  params["pos_embed"] = nhwc(golden[prefix + "pos_embed"])[0]
  if prefix + "query.weight" in golden:
    params["query"] = golden[prefix + "query.weight"]
  mean = prefix + "proj_student.1.running_mean"
  if mean not in golden:
    return {"params": params}
  # Neither does a batch normalisation see the bias in front of it.
  shift = params["conv"].pop("bias")
  var = golden[prefix + "proj_student.1.running_var"]
  stats = {"conv_norm": {"mean": golden[mean] - shift, "var": var}}
  return {"params": params, "batch_stats": stats}


def method_variables(golden, prefixes):
  """{'params': {projector: ...}, 'batch_stats': ...}."""
  found = {}
  for name, prefix in prefixes.items():
    for collection, values in projector(golden, prefix).items():
      found.setdefault(collection, {})[name] = values
  return found
