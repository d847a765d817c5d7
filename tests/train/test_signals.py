"""Signals ask once, echo for a moment, and end the run after that."""

import os
import signal

import pytest

from kd_jax.train import signals


@pytest.fixture(autouse=True)
def heard():
  """Signals do something, whatever the shell has switched off for the tests."""
  found = {
    n: signal.signal(n, signal.default_int_handler) for n in signals.STOP
  }
  yield
  for number, handler in found.items():
    signal.signal(number, handler)


@pytest.fixture
def clock(monkeypatch):
  now = [100.0]
  monkeypatch.setattr("kd_jax.train.signals.time.monotonic", lambda: now[0])
  return now


def test_the_first_asks_and_its_echo_is_not_heard(clock):
  asked = []
  before = [signal.getsignal(number) for number in signals.STOP]
  with signals.heeded(lambda: asked.append(1)):
    os.kill(os.getpid(), signal.SIGTERM)
    clock[0] += 0.5
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
  assert asked == [1]
  assert [signal.getsignal(number) for number in signals.STOP] == before


def test_a_later_one_ends_the_run(clock):
  with pytest.raises(KeyboardInterrupt), signals.heeded(lambda: None):
    os.kill(os.getpid(), signal.SIGINT)
    clock[0] += 2
    os.kill(os.getpid(), signal.SIGINT)


def test_what_is_switched_off_stays_so(clock):
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  with signals.heeded(lambda: pytest.fail("asked")):
    os.kill(os.getpid(), signal.SIGINT)
