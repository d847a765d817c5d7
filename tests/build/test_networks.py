"""How a teacher's weights are kept on the devices, as a config says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import config as config_lib
from kd_jax import trees
from kd_jax.build import images, networks, training
from kd_jax.train import mesh as mesh_lib

SMOKE = "configs/kdep_r18.py:smoke"


def teaching(*fields):
  return networks.teaching(config_lib.load(SMOKE, fields))


def test_kernels_in_bfloat16_are_another_teacher():
  whole, half = teaching(), teaching("teacher.param_dtype=bfloat16")
  assert whole.fingerprint != half.fingerprint
  kinds = {np.ndim(x): x.dtype for x in jax.tree.leaves(half.variables)}
  assert kinds == {1: jnp.float32, 2: jnp.bfloat16, 4: jnp.bfloat16}
  kept = trees.flatten(half.variables)
  for path, array in trees.flatten(whole.variables).items():
    np.testing.assert_allclose(
      kept[path].astype(np.float32), array, rtol=2**-8, err_msg=path
    )


@pytest.mark.parametrize(
  ("fields", "match"),
  [
    (
      ("teacher.param_dtype=float16",),
      r"param_dtype is 'float16'; allowed: \['float32', 'bfloat16'\]",
    ),
    (
      ("teacher.source=none", "teacher.param_dtype=bfloat16"),
      "source 'none' has no weights on the devices; set "
      "--config.teacher.param_dtype=float32",
    ),
    (
      ("teacher.source=none", "teacher.fsdp=True"),
      "source 'none' has no weights .*; set --config.teacher.fsdp=False",
    ),
  ],
)
def test_what_cannot_be_kept_so_is_refused(fields, match):
  with pytest.raises(ValueError, match=match):
    teaching(*fields)


@pytest.mark.parametrize("group", [3, -1])
def test_groups_that_do_not_fill_a_microbatch_are_refused(group):
  config = config_lib.load(SMOKE, [f"batch_norm_group={group}"])
  views = images.preprocess(config.preprocess.to_dict())
  with pytest.raises(ValueError, match="must divide the 8 images of a micro"):
    training.settings(config, mesh_lib.make_mesh(), views)
