"""What shells offer after Tab."""

import shlex
import shutil
import subprocess

import pytest

from kd_jax import cli
from kd_jax.commands import shells


@pytest.fixture(scope="module")
def script(tmp_path_factory):
  def write(shell):
    folder = tmp_path_factory.mktemp("completion")
    with pytest.MonkeyPatch.context() as patch:
      said = []
      patch.setattr("builtins.print", lambda text: said.append(text))
      assert cli.main(["completion", shell]) == 0
    path = folder / f"kd-jax.{shell}"
    path.write_text(said[0])
    return path

  return write


@pytest.fixture(scope="module")
def offered(script):
  path = script("bash")

  def offers(line, folder="."):
    words = line.split(" ")
    code = (
      f"source {path}; COMP_WORDS=({shlex.join(words)}); "
      f"COMP_CWORD={len(words) - 1}; _kd_jax; printf '%s\\n' "
      '"${COMPREPLY[@]}"'
    )
    found = subprocess.run(
      ["bash", "-c", code],
      cwd=folder,
      capture_output=True,
      text=True,
      check=True,
    )
    assert found.stderr == ""
    return found.stdout.split()

  return offers


def test_commands(offered):
  assert offered("kd-jax e") == ["embed", "evaluate", "export"]
  assert {"distill", "compare", "push", "completion"} < {*offered("kd-jax ")}


def test_options(offered):
  assert offered("kd-jax distill --st") == ["--student", "--steps"]
  assert offered("kd-jax push runs/a --dr") == ["--dry-run"]


def test_names(offered, tmp_path):
  assert offered("kd-jax distill --student mobilenetv2_14") == [
    "mobilenetv2_140"
  ]
  found = offered("kd-jax distill --images x --teacher dinov2-b")
  assert found == ["dinov2-base"]
  (tmp_path / "dinov2-mine").mkdir()
  found = offered("kd-jax distill --teacher dinov2-", tmp_path)
  assert "dinov2-mine" in found and "dinov2-large" in found


def test_paths(offered, tmp_path):
  (tmp_path / "photos").mkdir()
  assert offered("kd-jax embed pho", tmp_path) == ["photos"]
  assert offered("kd-jax distill --images pho", tmp_path) == ["photos"]


def test_fish_and_zsh(script):
  text = script("fish").read_text()
  assert "-n '__fish_seen_subcommand_from distill' -l student " in text
  assert all(
    line.count("'") % 2 == 0 for line in text.replace("\\'", "").splitlines()
  )
  assert script("zsh").read_text().startswith("autoload -U +X bashcompinit")


@pytest.mark.parametrize("shell", sorted(shells.WRITERS))
def test_syntax(shell, script):
  if not shutil.which(shell):
    pytest.skip(f"there is no {shell} here")
  subprocess.run([shell, "-n", script(shell)], check=True)


def test_another_shell(capsys):
  assert cli.main(["completion", "tcsh"]) == 1
  assert "invalid choice: 'tcsh'" in capsys.readouterr().err
