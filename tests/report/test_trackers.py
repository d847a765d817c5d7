import json
import sys
import types
from importlib.machinery import ModuleSpec

import pytest

import runs
from kd_jax import config as config_lib
from kd_jax.build import training
from kd_jax.report import metrics
from kd_jax.report.trackers import mlflow, together, wandb
from kd_jax.tasks import pretrain
from kd_jax.train import signals


class Service:
  """Stands in for both packages, and keeps what they are told."""

  def __init__(self):
    self.calls, self.broken, self.count = [], "", 0
    self.entities = types.SimpleNamespace(
      Param=lambda key, value: (key, value),
      Metric=lambda key, value, time, step: (key, value, step),
    )
    self.__spec__ = ModuleSpec("service", None)

  def tell(self, call, *args, **kwargs):
    if call == self.broken:
      raise OSError("no route\nto the service")
    self.calls.append((call, args, kwargs))

  # wandb
  def init(self, **kwargs):
    self.tell("init", **kwargs)
    self.count += 1
    return types.SimpleNamespace(
      id=kwargs["id"] or f"new{self.count}",
      define_metric=lambda *a, **k: None,
      log=lambda values: self.tell("log", values),
      finish=lambda **k: self.tell("finish", **k),
    )

  # mlflow
  def MlflowClient(self):  # noqa: N802
    return self

  def get_experiment_by_name(self, name):
    self.tell("experiment", name)

  def create_experiment(self, name):
    return f"id of {name}"

  def create_run(self, place, run_name):
    self.tell("create_run", place, run_name)
    return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"))

  def update_run(self, run_id, status):
    self.tell("update_run", run_id, status)

  def log_batch(self, run_id, metrics=(), params=()):
    self.tell("log", run_id, *metrics, *params)

  def set_terminated(self, run_id, status):
    self.tell("finish", run_id, status)

  def of(self, call):
    return [
      (*args, *kwargs.items()) for c, args, kwargs in self.calls if c == call
    ]


@pytest.fixture(params=["wandb", "mlflow"])
def name(request):
  return request.param


@pytest.fixture
def service(name, monkeypatch):
  found = Service()
  monkeypatch.setitem(sys.modules, name, found)
  for variable in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
    monkeypatch.delenv(variable, raising=False)
  return found


def trial(tmp_path):
  folder = tmp_path / "dtd" / "trials" / "a"
  folder.mkdir(parents=True)
  config = {"optim": {"lr": 0.1}, "steps": 8}
  (tmp_path / "dtd" / "config.json").write_text(json.dumps(config))
  return folder


def test_a_run_goes_on_under_its_name(name, service, tmp_path):
  folder = trial(tmp_path)
  assert together.check([name]) == (name,)
  for first, failed in (
    (0, None),
    (4, ValueError),
    (4, signals.Stopped),
    (0, None),
  ):
    with together.Trackers([name], folder, start_step=first) as others:
      with metrics.Writer(folder, start_step=first, others=others.write) as w:
        w.write(first + 2, {"loss/total": 0.5})
      others.__exit__(failed)
  lines = metrics.read(folder)
  assert [line["step"] for line in lines] == [2]
  if name == "wandb":
    starts = [dict(x) for x in service.of("init")]
    assert [x["id"] for x in starts] == [None, "new1", "new1", None]
    assert starts[0]["name"] == "dtd/trials/a" and starts[0]["dir"] == folder
    assert starts[0]["project"] == "kd_jax"
    assert starts[0]["config"] == {"optim.lr": "0.1", "steps": "8"}
    logged = [({"step": s, "loss/total": 0.5},) for s in (2, 6, 6, 2)]
    assert service.of("log") == logged
    codes = [x[0][1] for x in service.of("finish")]
    assert codes == [0, 1, 0, 0]
  else:
    assert service.of("create_run") == [("id of kd_jax", "dtd/trials/a")] * 2
    assert service.of("update_run") == [("r1", "RUNNING")] * 2
    sent = service.of("log")
    params = ("r1", ("optim.lr", "0.1"), ("steps", "8"))
    figures = [("r1", ("loss/total", 0.5, step)) for step in (2, 6, 6, 2)]
    assert sent == [params, *figures[:3], params, figures[3]]
    ends = [status for _, status in service.of("finish")]
    assert ends == ["FINISHED", "FAILED", "FINISHED", "FINISHED"]


def test_a_service_that_is_lost_ends_no_run(name, service, tmp_path, caplog):
  folder = trial(tmp_path)
  with together.Trackers([name], folder) as others:
    service.broken = "log"
    with metrics.Writer(folder, others=others.write) as writer:
      writer.write(1, {"x": 1.0})
      writer.write(2, {"x": 2.0})
  assert [line["x"] for line in metrics.read(folder)] == [1.0, 2.0]
  (record,) = caplog.records
  assert f"{name} fails at step 1 (no route)" in record.getMessage()
  assert service.of("finish") == []


def test_a_service_that_does_not_answer_is_an_error(name, service, tmp_path):
  service.broken = {"wandb": "init", "mlflow": "create_run"}[name]
  with pytest.raises(ValueError, match=rf"{name} does not take .*\(no route\)"):
    together.Trackers([name], trial(tmp_path))


def test_names_that_cannot_be(monkeypatch):
  with pytest.raises(
    ValueError, match="trackers has no 'wand'; it has .*wandb"
  ):
    together.check(["wand"])
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(ValueError, match="needs the package .*pip install"):
    together.check(["wandb", "mlflow"])
  assert together.check(()) == () and together.check([]) == ()


def test_a_tracker_is_named_once(name, service):
  with pytest.raises(ValueError, match="names one twice"):
    together.check([name, name])


def test_a_config_names_trackers(name, service):
  config = config_lib.load(
    str(runs.ROOT / "configs" / "kdep_r18.py:smoke"), [f"trackers=('{name}',)"]
  )
  assert training.schedule(config).trackers == (name,)
  config.trackers = (name, "nosuch")
  with pytest.raises(ValueError, match="trackers has no 'nosuch'"):
    training.schedule(config)


@pytest.mark.slow
def test_a_run_tells_its_trackers_what_it_writes(name, service, tmp_path):
  config = config_lib.load(
    str(runs.ROOT / "configs" / "kdep_r18.py:smoke"), [f"trackers=('{name}',)"]
  )
  pretrain.run(config, tmp_path / "run")
  written = sum(len(line) - 1 for line in metrics.read(tmp_path / "run"))
  sent = service.of("log")
  if name == "wandb":
    assert sum(len(values) - 1 for (values,) in sent) == written > 10
  else:
    figures = [x for _, *rest in sent for x in rest if len(x) == 3]
    assert len(figures) == written > 10


def test_no_tracker_leaves_no_file(tmp_path):
  with together.Trackers((), tmp_path) as others:
    others.write(1, {"x": 1.0})
  assert not list(tmp_path.iterdir())
  assert wandb.Tracker and mlflow.Tracker
