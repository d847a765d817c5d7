"""A student goes to the hub, which here is a server of the test."""

import shutil

import hub_stub
import pytest
from door_case import STUDENT, command
from huggingface_hub import ModelCard, constants

import kd_jax
from kd_jax.report import hub_card

REPO = "me/birds"


@pytest.fixture
def run(finished, tmp_path):
  return shutil.copytree(finished[0], tmp_path / "run")


@pytest.fixture
def hub(monkeypatch):
  monkeypatch.setenv("HF_TOKEN", "hf_secret")
  with hub_stub.running() as server:
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    yield server


def test_files_are_sent_in_one_commit(run, hub):
  status, said = command("push", run, REPO, "--license", "apache-2.0")
  assert status == 0, said
  assert hub.tokens == {"Bearer hf_secret"} and "hf_secret" not in said
  path, files = hub_stub.committed(hub)
  assert path == "/api/models/me/birds/commit/main"
  folder = run / "export" / "timm"
  assert set(files) == {"model.safetensors", "config.json", "README.md"}
  assert all(
    data == (folder / name).read_bytes() for name, data in files.items()
  )
  assert f"README.md -> {hub.url}/{REPO}" in said


def test_the_card(run, hub, teacher):
  assert kd_jax.push(run, REPO, licence="mit") == f"{hub.url}/{REPO}"
  card = ModelCard(hub_stub.committed(hub)[1]["README.md"].decode())
  known = card.data.to_dict()
  assert known == {
    "license": "mit",
    "library_name": "timm",
    "pipeline_tag": "image-feature-extraction",
    "tags": ["kd_jax", "distillation"],
  }
  for line in (
    'timm.create_model("hf-hub:me/birds", pretrained=True)',
    f'kd_jax.load_pretrained("{STUDENT}", "{REPO}")',
    "- teacher: resnet18 (weights of its owner)",
    "- method: kdep: 3 feature",
    "- steps: 3 of 4 images",
    "- images: 40",
    "- eval/feature_error: ",
  ):
    assert line in card.text, line
  assert str(teacher) not in card.content  # nor other paths of this machine


def test_a_teacher_of_the_hub_is_named():
  about = {"teacher_weights": "hf-hub:timm/resnet50.a1_in1k"}
  assert "base_model: timm/resnet50.a1_in1k" in hub_card.front(about, "mit")
  about = {"teacher_weights": "/home/me/teacher"}
  assert "base_model" not in hub_card.front(about, "mit")


def test_what_it_was_worth_is_in_the_card():
  worth = {
    "classes": ["a", "b"],
    "train_images": 30,
    "test_images": 8,
    "figures": {"student": {"knn": [0.5, 0.75]}},
  }
  (line,) = hub_card._figures({"grad_norm": 1.0}, worth)
  assert line == (
    "- knn of the frozen student, 2 classes, 30 images to learn from: 62.5 % "
    "of 8 right"
  )


def test_a_dry_run_sends_nothing(run, hub, monkeypatch):
  monkeypatch.delenv("HF_TOKEN")
  monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(run / "none"))
  shutil.rmtree(run / "export")  # it is made
  status, said = command("push", run, REPO, "--dry-run", "--private")
  assert status == 0 and hub.asked == []
  for line in (
    f"repository: {hub.url}/{REPO} (private if new), branch main",
    "token: none; hf auth login stores one",
    "model.safetensors  ",
    "  library_name: timm",
  ):
    assert line in said


def test_an_edited_card_is_kept(run, hub):
  command("push", run, REPO, "--dry-run")
  path = run / "export" / "timm" / "README.md"
  path.write_text(path.read_text() + "Mine.\n")
  command("push", run, REPO)
  assert hub_stub.committed(hub)[1]["README.md"].endswith(b"Mine.\n")
  with pytest.raises(ValueError, match="names another licence than mit; edit"):
    kd_jax.push(run, REPO, licence="mit")
  command("push", run, "me/others", "--dry-run")
  assert "hf-hub:me/others" in path.read_text()


def test_a_branch_is_made(run, hub):
  hub.private = True
  assert command("push", run, REPO, "--revision", "v2", "--private")[0] == 0
  paths = [path.partition("?")[0] for path, _ in hub.asked]
  assert "/api/models/me/birds/branch/v2" in paths
  assert hub_stub.committed(hub)[0] == "/api/models/me/birds/commit/v2"


def test_nothing_private_goes_to_a_public_repository(run, hub):
  with pytest.raises(ValueError, match="is there already, and public"):
    kd_jax.push(run, REPO, private=True)
  assert not any("commit" in path for path, _ in hub.asked)


@pytest.mark.parametrize(
  ("status", "message"),
  [
    (401, r"the hub refuses me/birds \(401\): the token is not valid"),
    (403, r"\(403\): the token may not write there"),
    (404, r"\(404\): there is no such owner"),
    (400, r"\(400\): "),
  ],
)
def test_what_the_hub_refuses(status, message, run, hub):
  hub.status = status
  with pytest.raises(ValueError, match=message):
    kd_jax.push(run, REPO)


def test_no_network(run, hub, monkeypatch):
  monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
  with pytest.raises(ValueError, match="127.0.0.1:9 cannot be reached"):
    kd_jax.push(run, REPO)


def test_no_token(run, hub, monkeypatch):
  monkeypatch.delenv("HF_TOKEN")
  monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(run / "none"))
  with pytest.raises(ValueError, match="no token .*; run 'hf auth login'"):
    kd_jax.push(run, REPO)
  assert hub.asked == []
