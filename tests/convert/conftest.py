"""A small model with drawn weights, shared by the tests of conversion."""

from __future__ import annotations

import goldens as gw
import pytest

from kd_jax import convert, models
from kd_jax.convert import rules

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "num_classes": 7}


@pytest.fixture(scope="session")
def small():
  """(model, state_dict, variables) of a narrow resnet18."""
  model = models.create_model("resnet18", **SMALL)
  entries = rules.entries(model)
  state_dict = {k: gw.make_param(k, e.shape) for k, e in entries.items()}
  return model, state_dict, convert.from_timm(model, state_dict)
