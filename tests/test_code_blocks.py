"""Blocks of code that pages show run, or would: what cannot run is checked.

A block runs below, or its commands are read as the programs read them, up to
where they would begin to work; or a comment before it says why not.
"""

import ast
import dataclasses
import importlib
import re
import shutil

import numpy as np
import pytest
import shown
from ml_collections import ConfigDict
from PIL import Image
from sklearn.datasets import load_sample_image
from test_docs import EXAMPLES

import kd_jax
import runs
from kd_jax import cli, main, models, resolve
from kd_jax import config as config_lib
from kd_jax.door import teachers

SHELL, PYTHON = shown.blocks("sh"), shown.blocks("python")
FLOORS = {"data": "data.sources", "train": "data.sources"} | {
  "test": "data.sources",
  "method": "methods",
}
SYMBOLS = {"data.sources": "Source", "methods": "Method"}


def test_blocks_are_found_and_reasons_are_words():
  assert len(SHELL) > 30 and len(PYTHON) > 10
  for block in [*SHELL, *PYTHON]:
    assert not block.reason or len(block.reason.split()) > 1, block


def check_main(argv):
  """As `python -m kd_jax.main` until the task begins."""
  args, rest = main._parser().parse_known_args(argv)
  config = config_lib.load(args.config, main._overrides(rest))
  resolve.symbol("tasks", config.task, "run")
  for part, floor in FLOORS.items():
    fields = config.get(part) or {}
    if fields.get("name"):
      cls = resolve.symbol(floor, fields["name"], SYMBOLS[floor])
      allowed = {field.name for field in dataclasses.fields(cls)}
      assert set(fields) - {"name"} <= allowed, (argv, part)


def check_cli(argv):
  """As `kd-jax` until it looks at the folders."""
  args = cli._parser().parse_args(argv)
  known = models.list_models()
  assert getattr(args, "student", known[0]) in known, argv
  teacher = getattr(args, "teacher", "")
  # Of 'evaluate' it is a switch.
  if isinstance(teacher, str) and teacher not in ("", *teachers.ALIASES):
    assert teachers.choose(teacher).source == "online", argv


def check_module(module, *argv):
  if module == "kd_jax.main":
    check_main(argv)
  elif module.startswith("benchmarks."):
    path = runs.ROOT / "benchmarks" / f"{module.partition('.')[2]}.py"
    text = path.read_text() + path.with_name("_command_line.py").read_text()
    for flag in (x[2:] for x in argv if x.startswith("--")):
      assert re.search(rf'"(--)?{flag}"|\b{flag}=\d', text), argv
  else:
    assert module in ("pytest", "venv"), module


def check(program, *argv):
  """Reads a command as its program would."""
  if program == "kd-jax":
    check_cli(argv)
  elif program == "python" and argv[0] == "-m":
    check_module(*argv[1:])
  elif program == "python":
    assert argv[0] in ("-", "-c"), argv
    compile(argv[1], "<shell>", "exec")
  elif program == "pip":
    files = [b for a, b in zip(argv, argv[1:], strict=False) if a == "-r"]
    assert argv[0] == "install" and len(argv) > 1
    assert all((runs.ROOT / name).is_file() for name in files), argv


@pytest.mark.parametrize("block", [x for x in SHELL if not x.reason], ids=str)
def test_commands_are_understood(block, tmp_path):
  found = shown.commands(block.text, tmp_path)
  assert found
  for command in found:
    check(*command)


def test_a_wrong_command_is_noticed(tmp_path):
  loop = 'for x in a b; do python -m kd_jax.main --config "$x.py"; done'
  assert [x[-1] for x in shown.commands(loop, tmp_path)] == ["a.py", "b.py"]
  begin = "python -m kd_jax.main --config configs/kdep_r18.py --config."
  for line, message in (
    (f"{begin}step=3", "there is no field config.step"),
    (f"{begin}steps=x", "is no int"),
    (f"{begin}data.dri=x", "data.dri"),
    ("python -m kd_jax.main --config configs/none.py", "there is no config"),
    ("kd-jax distill --images a --stepz 3", "--teacher"),
    ("kd-jax distill --images a --teacher resnet81", "no teacher 'resnet81'"),
    ("python -m benchmarks.scalekd --sides 3", "--sides"),
    ("pip install -r none.txt", "none.txt"),
    ("sudo make me", "sudo"),
  ):
    with pytest.raises((ValueError, AssertionError), match=message):
      for command in shown.commands(line, tmp_path):
        check(*command)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_is_python_and_names_what_is_there(block):
  for node in ast.walk(ast.parse(block.text)):
    if isinstance(node, ast.ImportFrom) and node.module.startswith("kd_jax"):
      module = importlib.import_module(node.module)
      for alias in node.names:
        here = hasattr(module, alias.name)
        assert here or importlib.import_module(f"{node.module}.{alias.name}")
    elif (
      isinstance(node, ast.Attribute) and ast.unparse(node.value) == "kd_jax"
    ):
      assert hasattr(kd_jax, node.attr), block


RUN = [x for x in PYTHON if not x.reason and x.text not in EXAMPLES.values()]


def student_of(blocks):
  """The network that a page's blocks load from its run."""
  text = "\n".join(block.text for block in blocks)
  found = re.findall(r'load_pretrained\("(\w+)"', text)
  return found[0] if found else "resnet18"


def save_photographs(folder, count=12):
  folder.mkdir(parents=True)
  photo = load_sample_image("china.jpg")
  for i in range(count):
    tile = Image.fromarray(photo[9 * i :, 13 * i :][:60, :70])
    tile.save(folder / f"{i}.jpg")


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({x.page for x in RUN}))
def test_python_runs(page, tmp_path, monkeypatch):
  """In a folder with photos and a short run of the page's student."""
  mine = [block for block in RUN if block.page == page]
  monkeypatch.chdir(tmp_path)
  save_photographs(tmp_path / "photos")
  for name in ("cats", "dogs"):
    save_photographs(tmp_path / "labelled" / name)
  if any("runs/mine" in x.text or "flax" in x.text for x in mine):
    flags = {"steps": 1, "batch_size": 4, "image_size": 32}
    kd_jax.distill(
      "photos", "resnet18", student_of(mine), teacher_weights="random", **flags
    )
    shutil.copytree("runs/mine/export", tmp_path, dirs_exist_ok=True)
  images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
  names = {"images": images, "ConfigDict": ConfigDict, "config": ConfigDict()}
  for block in mine:
    exec(compile(block.text, str(block), "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize(
  "block",
  [x for x in SHELL if "python - <<" in x.text and not x.reason],
  ids=str,
)
def test_python_inside_of_shell_runs(block, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "docs").mkdir()
  for program, *argv in shown.commands(block.text, tmp_path):
    if (program, argv[0]) == ("python", "-"):
      exec(compile(argv[1], str(block), "exec"), {})
  assert len(list(tmp_path.rglob("*.[jp][pn]g"))) > 0
