"""Runs of tests/configs/tiny.py that write a bank and learn from it."""

import numpy as np

import runs
from kd_jax import main
from kd_jax.build import images, networks
from kd_jax.data.bank import Bank
from kd_jax.report import metrics

STEPS = 20
# At a higher rate a last bit, which may depend on the batch, moves a value
# across a ReLU, and the runs part from there.
RATE = "optim.lr=0.0001"
PLAIN = ("batch_size=20", f"steps={STEPS}", "checkpoint.every=20", RATE)
FEATURE = (*PLAIN, "fit.augment=True", "seed=1")
CROPS = (*PLAIN, "preprocess.num_crops=2", "data.split=train[:100]")
LOGITS = (
  *CROPS,
  "losses.feature=0.0",
  "losses.kl=1.0",
  "student.overrides.num_classes=10",
)


def run(where, *fields, variant=""):
  return main.main(runs.arguments(where, *fields, variant=variant))


def write(where, *fields):
  """The place of the bank that a run writes."""
  assert run(where, *fields, variant="bank") == 0
  return where / "bank"


def stored(place):
  return ("teacher.source=bank", f"teacher.weights={place}")


def assert_same_training(ours, theirs):
  """Up to rounding, which the steps amplify: a row's last bits may depend on
  the batch."""
  mine, other = (runs.state(where, STEPS) for where in (ours, theirs))
  assert set(mine) == set(other) and len(mine) > 90
  for name, array in other.items():
    np.testing.assert_allclose(mine[name], array, 1e-3, 1e-3, err_msg=name)
  # Far more than that is between one step's gradient and the next one's.
  losses = np.array([line.get("loss/total", 0) for line in metrics.read(ours)])
  assert np.ptp(losses[losses > 0]) > 0.1


def crops(place, number):
  return Bank(str(place)).shard(number, 0)["geometry"]


def files(place):
  """{path: bytes}; a killed writer may leave a lock."""
  paths = (p for p in place.rglob("*") if p.is_file())
  return {
    str(p.relative_to(place)): p.read_bytes()
    for p in paths
    if not p.name.endswith(".__lock")
  }


def assert_same_bank(ours, theirs):
  mine, other = files(ours), files(theirs)
  assert set(mine) == set(other) and len(other) > 12
  for name, data in other.items():
    assert mine[name] == data, name


def shards(where, number=0):
  return len([*where.glob(f"bank/pass{number:04}/shards/*.json")])


def between(where):
  """After a shard's arrays, before its manifest."""
  begun = len([*where.glob("bank/pass0000/values/c/*")])
  return begun > max(shards(where), 3)


def refused(capsys, where, *fields, variant=""):
  """What a run says that ends before its first step."""
  capsys.readouterr()
  assert run(where, *fields, variant=variant) == 1
  assert not runs.checkpoints(where) and not runs.lines(where)
  said = capsys.readouterr().err
  assert "Traceback" not in said and said.count("error: ") == 1, said
  return said[said.index("error: ") :]


def viewed(config):
  teaching = networks.teaching(config)
  return images.preprocess(
    config.preprocess.to_dict(), teaching.source.evaluation_view
  )
