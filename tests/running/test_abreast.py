from __future__ import annotations

import os
import signal
import threading

import pytest

from kd_jax.running import abreast
from kd_jax.train import signals


def test_results_keep_the_order_of_the_jobs():
  met = threading.Barrier(2, timeout=20)  # fails unless two are under way

  def job(number):
    met.wait()
    return number, threading.get_ident()

  jobs = [lambda n=n: job(n) for n in range(6)]
  found = abreast.results(jobs, 2)
  assert [number for number, _ in found] == list(range(6))
  here = threading.get_ident()
  assert all(thread != here for _, thread in found)
  plain = abreast.results([lambda n=n: n for n in range(3)], 1)
  assert plain == [0, 1, 2]


def test_after_a_failure_no_other_job_begins():
  failed, begun = threading.Event(), []

  def fails():
    failed.set()
    raise ValueError("no such image")

  def waits():
    failed.wait(20)
    threading.Event().wait(0.1)
    return "whole"

  jobs = [waits, fails, *[lambda n=n: begun.append(n) for n in range(9)]]
  with pytest.raises(ValueError, match="no such image"):
    abreast.results(jobs, 2)
  assert not begun


def test_a_signal_stops_all_that_are_under_way():
  ready, said, begun = threading.Barrier(3, timeout=20), [], []

  def run(number):
    asked = threading.Event()
    with signals.heeded(asked.set):
      ready.wait()
      assert asked.wait(20)
    said.append(number)
    raise signals.Stopped(f"stopped {number}")

  def send():
    ready.wait()
    os.kill(os.getpid(), signal.SIGTERM)

  jobs = [lambda n=n: run(n) for n in range(2)]
  jobs += [lambda: begun.append(True)] * 3
  sender = threading.Thread(target=send)
  sender.start()
  with pytest.raises(signals.Stopped, match="stopped 0"):
    abreast.results(jobs, 2)
  sender.join()
  assert sorted(said) == [0, 1]
  assert not begun
  assert not signals._elsewhere


def test_one_at_a_time_beside_trackers_and_on_several_devices(monkeypatch):
  monkeypatch.setattr(abreast.jax, "device_count", lambda: 1)
  assert abreast.allowed(3, ()) == 3
  assert abreast.allowed(3, ("wandb",)) == 1
  monkeypatch.setattr(abreast.jax, "device_count", lambda: 2)
  assert abreast.allowed(3, ()) == 1


def test_a_job_waits_for_what_it_needs_and_others_go_first():
  both = threading.Barrier(2, timeout=20)
  begun = []

  def job(name, *, meets=False):
    def run():
      begun.append(name)
      if meets:
        both.wait()
      return name

    return run

  # The third begins beside the first, which the second waits for.
  jobs = [job("first", meets=True), job("second"), job("third", meets=True)]
  found = abreast.results(jobs, 2, [(), (0,), ()])
  assert found == ["first", "second", "third"]
  assert begun == ["first", "third", "second"]
