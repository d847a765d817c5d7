import numpy as np
import pytest

from kd_jax.transfer import protocol
from kd_jax.transfer.protocol import Protocol


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"trains": "all"}, "transfer.trains is 'all'; it can be .*'head'"),
    ({"select": "test"}, "transfer.select is 'test'; it can be .*'best_test'"),
    ({"rates": (0.1, 0.0)}, r"rates is \(0.1, 0.0\); it must be positive"),
    ({"rates": (0.1, 0.1)}, "that differ in their first six digits"),
    ({"rates": (0.1, 0.10000001)}, "that differ in their first six digits"),
    ({"seeds": ()}, "seeds is .*different whole numbers.*at least one"),
    ({"seeds": (1, 1)}, "different whole numbers from 0 on"),
    ({"seeds": (-1,)}, "different whole numbers from 0 on"),
    ({"seeds": (0.5,)}, "different whole numbers from 0 on"),
    ({"shots": -1}, r"shots is -1; it must be at least 0 \(all\)"),
    ({"holdout": 0.0}, r"holdout is 0.0; it must be in \(0, 1\)"),
    ({"holdout": 1.0}, r"holdout is 1.0; it must be in \(0, 1\)"),
    ({"search_seeds": 0}, "search_seeds is 0; it must be at least 1"),
  ],
)
def test_values_that_are_not_allowed(fields, message):
  with pytest.raises(ValueError, match=message):
    Protocol(**fields)


def test_a_search_runs_every_rate_at_seeds_of_its_own():
  found = Protocol(rates=[0.3, 0.1], seeds=[4, 0, 2], search_seeds=2)
  assert found.searches
  assert found.search() == [(0.3, 5), (0.3, 6), (0.1, 5), (0.1, 6)]
  assert not {seed for _, seed in found.search()} & {*found.seeds}


@pytest.mark.parametrize(
  "fields",
  [{}, {"rates": (0.1,)}, {"rates": (0.1, 0.3), "select": "best_test"}],
)
def test_there_is_nothing_to_search(fields):
  found = Protocol(**fields)
  assert not found.searches and found.search() == []


def test_the_best_rate_has_the_highest_mean():
  found = {(0.1, 5): 0.9, (0.1, 6): 0.1, (0.3, 5): 0.6, (0.3, 6): 0.6}
  assert protocol.best(found) == 0.3
  assert protocol.best({**found, (0.1, 6): 0.3}) == 0.1  # a tie: the lowest
  assert protocol.best({(1.0, 0): 0.0}) == 1.0


def test_mean_and_standard_error():
  values = [0.2, 0.5, 0.9]
  mean, error = protocol.mean_and_error(values)
  assert mean == pytest.approx(1.6 / 3)
  assert error == pytest.approx(np.std(values, ddof=1) / np.sqrt(3))
  assert protocol.mean_and_error([0.25]) == (0.25, None)
