"""Banks of one data set as one."""

import dataclasses
import pickle

import numpy as np
import pytest

from kd_jax.data.bank import Bank, Header
from kd_jax.data.several import banks
from kd_jax.interfaces import computed

ABOUT = {"images": "x", "seed": 0, "views": {"scale": [0.5, 1.0]}}


@dataclasses.dataclass(frozen=True)
class Fake(Bank):
  """Knows its rows by heart."""

  about: tuple = ()
  crops: int = 2
  kept: int = 3
  shift: int = 0

  @computed
  def header(self):
    about = {**ABOUT, **dict(self.about)}
    return Header(16, self.crops, 16, {"geometry": ((7,), "int16")}, about)

  @property
  def num_passes(self):
    return self.kept

  def read(self, passes, ids):
    rows = np.arange(len(ids) * 14).reshape(len(ids), 2, 7)
    return {"geometry": rows + self.shift, "values": rows * 2.0}


def test_arrays_carry_the_name_of_their_teacher():
  found = banks.joined({"a": Fake("a"), "b": Fake("b", kept=2)})
  got = found.read(np.zeros(3, int), np.arange(3))
  assert set(got) == {"geometry", "a/values", "b/values"}
  np.testing.assert_array_equal(got["a/values"], got["geometry"] * 2)
  assert found.num_passes == 2
  assert dataclasses.replace(found, passes=1).num_passes == 1
  assert [name for name, _ in pickle.loads(pickle.dumps(found)).parts] == [
    "a",
    "b",
  ]
  assert banks.joined({}) is None


def test_other_crops_are_found_while_reading():
  found = banks.joined({"a": Fake("a"), "b": Fake("b", shift=1)})
  with pytest.raises(ValueError, match="banks a and b hold other crops of rec"):
    found.read(np.zeros(3, int), np.arange(3))


@pytest.mark.parametrize(
  ("other", "message"),
  [
    (Fake("b", about=(("images", "y"),)), "a and b hold other crops: .*'y'"),
    (Fake("b", about=(("seed", 1),)), "a and b hold other crops: .*'seed': 1"),
    (Fake("b", crops=1), "hold other crops"),
    (Fake("b", about=(("per_image", True),)), r"\['b'\] hold what was said"),
  ],
)
def test_banks_of_other_images_are_refused(other, message):
  with pytest.raises(ValueError, match=message):
    banks.joined({"a": Fake("a"), "b": other})
