"""Licences against those that timm tells."""

import timm

from kd_jax import models
from kd_jax.convert import licences


def test_what_is_not_free_is_known():
  wrong = []
  for name in timm.list_models(pretrained=True):
    if not models.exists(name.partition(".")[0]):
      continue
    told = timm.get_pretrained_cfg(name).license
    want = "" if told in (*licences.FREE, None, "unknown") else told
    if licences.restricted(name) != want:
      wrong.append((name, licences.restricted(name), want))
  assert not wrong, wrong
