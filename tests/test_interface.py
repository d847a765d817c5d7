"""Nothing that a user can name goes away, and no field changes its type."""

import json

import pytest

import interface

PROMISED = json.loads(interface.LIST.read_text())


@pytest.fixture(scope="module")
def today():
  return interface.today()


@pytest.mark.parametrize("section", sorted(PROMISED))
def test_what_was_promised_is_there(section, today):
  assert len(PROMISED[section]) >= 10
  for name, members in PROMISED[section].items():
    assert name in today[section]
    missing = set(members) - set(today[section][name])
    assert not missing, f"{name} has lost {missing}"


def test_positional_parameters_keep_their_order(today):
  for name, members in PROMISED["functions"].items():
    kept = [m for m in today["functions"][name] if m in members]
    assert kept == members
