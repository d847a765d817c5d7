"""Rates of FKD and ReLabel against the authors' code, and mixed images."""

import pathlib

import jax
import numpy as np
import pytest

from kd_jax.train import views
from kd_jax.train.optim import Optim

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
EPOCH = 8  # steps


def rates(optim, total, steps):
  """In float64, as the golden's code."""
  with jax.enable_x64(True):
    return np.asarray(jax.jit(jax.vmap(optim.rate(total)))(np.asarray(steps)))


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_rates_of_every_pass_over_the_data(kind):
  golden = np.load(GOLDEN / "fkd_schedule.npz")
  optim = {
    "cnn": Optim(
      lr=0.1,
      schedule="cosine",
      stairs=((0, 4 * EPOCH, 0), (296 * EPOCH, EPOCH, 296 * EPOCH)),
    ),
    # The last three epochs have the rate of the next one.
    "vit": Optim(
      lr=2e-3,
      schedule="whole_cosine",
      warmup=5 * EPOCH,
      warmup_lr=1e-5,
      final_lr=1e-5,
      stairs=(
        (0, EPOCH, 0),
        (5 * EPOCH, 4 * EPOCH, 5 * EPOCH),
        (297 * EPOCH, EPOCH, 298 * EPOCH),
      ),
    ),
  }[kind]
  first = golden[f"{kind}_epoch"] * EPOCH
  length = golden[f"{kind}_num_crops"] * EPOCH
  for steps in (first, first + 1, first + length - 1):
    found = rates(optim, 300 * EPOCH, steps)
    np.testing.assert_allclose(found, golden[f"{kind}_lr"], rtol=0, atol=1e-15)
  assert (first[1:] == (first + length)[:-1]).all()


def test_rates_of_relabel_change_at_every_step():
  golden = np.load(GOLDEN / "relabel_schedule.npz")
  optim = Optim(lr=0.1, schedule="cosine", warmup=5 * 1252)
  steps = golden["epoch_iter"] @ [1252, 1]
  found = rates(optim, 300 * 1252, steps)
  np.testing.assert_allclose(found, golden["lr"], rtol=0, atol=1e-15)


def test_float32_is_near():
  optim = Optim(lr=0.1, schedule="cosine", stairs=((0, 5004, 0),))
  step = jax.numpy.int32(5004 * 37 + 5003)
  found = jax.jit(optim.rate(375_300))(step)
  want = 0.05 * (1 + np.cos(np.pi * 5004 * 37 / 375_300))
  np.testing.assert_allclose(found, want, rtol=1e-6)


@pytest.mark.parametrize(
  ("fields", "match"),
  [
    ({"stairs": (0, 4, 0)}, "optim.stairs is .*it holds"),
    ({"stairs": ((0, 0, 0),)}, "every >= 1"),
    ({"stairs": ((8, 1, 8), (0, 4, 0))}, "rising order"),
    ({"final_lr": 0.1, "lr": 0.01, "schedule": "cosine"}, "at most at optim"),
    ({"final_lr": 0.01}, "schedule is 'constant'"),
    ({"warmup_lr": 0.01}, "no warm-up; set optim.warmup"),
    ({"warmup_lr": -1.0, "warmup": 2}, "warmup_lr is -1.0; it must be"),
  ],
)
def test_errors(fields, match):
  with pytest.raises(ValueError, match=match):
    Optim(**fields)


def test_mixup_is_the_authors():
  golden = np.load(GOLDEN / "fkd_mix.npz")
  perm, share = golden["perm"], 1 - float(golden["mixup_lam"])
  for name, atol in (("images", 0), ("soft", 4e-8)):
    x = golden[name]
    found = views.mixture(x, x[perm], share)
    np.testing.assert_allclose(found, golden[f"mixup_{name}"], 0, atol)


@pytest.mark.parametrize("case", range(4))
def test_cutmix_is_the_authors(case):
  golden = np.load(GOLDEN / "fkd_mix.npz")
  images, soft, perm = (golden[k] for k in ("images", "soft", "perm"))
  mine = {
    k: golden[f"cutmix{case}_{k}"] for k in ("lam", "center", "bbox", "lam_adj")
  }
  share = 1 - float(mine["lam"])
  mask = np.asarray(views.rectangle(mine["center"], share, (20, 16)))
  top, left, bottom, right = mine["bbox"]
  want = np.zeros((20, 16), np.float32)
  want[top:bottom, left:right] = 1
  np.testing.assert_array_equal(mask, want)
  assert 1 - mask.mean(dtype=np.float64) == pytest.approx(
    float(mine["lam_adj"])
  )
  found = views.mixture(images, images[perm], mask)
  np.testing.assert_array_equal(found, golden[f"cutmix{case}_images"])
  found = views.mixture(soft, soft[perm], mask.mean(dtype=np.float64))
  np.testing.assert_allclose(found, golden[f"cutmix{case}_soft"], 0, 4e-8)
