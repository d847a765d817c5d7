"""What goes wrong after a run: one line each, and nothing is written."""

import shutil

import pytest
from door_case import photographs, refused

import kd_jax
from kd_jax import lock


@pytest.fixture(scope="module")
def place(tmp_path_factory, teacher):
  root = tmp_path_factory.mktemp("after")
  photographs(root / "flat", count=4)
  photographs(root / "one" / "cat", count=4)
  for folder in ("pair", "other", "few", "torn"):
    photographs(root / folder / "cat", count=5)
  photographs(root / "pair" / "dog", count=5)
  photographs(root / "other" / "cow", count=5)
  photographs(root / "few" / "dog", count=1)
  shutil.copytree(root / "pair", root / "loose")
  shutil.copy(root / "flat" / "00.jpg", root / "loose" / "stray.jpg")
  (root / "torn" / "dog").mkdir()
  for path in [*(root / "torn" / "cat").iterdir()]:
    path.write_bytes(b"no image")
    shutil.copy(path, root / "torn" / "dog")
  (root / "empty").mkdir()
  (root / "file.txt").write_text("text")
  shutil.copytree(teacher, root / "checkpoint")
  for name in ("a", "b", "damaged", "busy", "fresh"):
    (root / name).mkdir()
    (root / name / "config.json").write_text('{"steps": 2, "batch_size": 4}')
    (root / name / "metrics.jsonl").write_text('{"step": 2, "loss/total": 1}\n')
  (root / "damaged" / "summary.json").write_text("{")
  (root / "fresh" / "metrics.jsonl").unlink()
  (root / "started").mkdir()
  (root / "started" / "summary.json").write_text("{}")
  return root


EVALUATE = [
  (
    "flat --model checkpoint",
    "4 images of flat are not sorted; sort them into",
  ),
  ("one --model checkpoint", "one has one class only, 'cat'; two at least"),
  (
    "loose --model checkpoint",
    r"class folders and beside them, such as stray\.",
  ),
  ("few --model checkpoint", r"1 of 2 classes have fewer than 2 .*\['dog'\]"),
  (
    "torn --model checkpoint",
    "none of 8 images can be read, .*torn/cat/00.jpg",
  ),
  ("empty --model checkpoint", "no image"),
  ("nowhere --model checkpoint", "images must be a folder, and nowhere does"),
  ("gs://b/x --model checkpoint", "images is gs://b/x; this command reads"),
  ("pair --model nowhere", "no model 'nowhere'"),
  ("pair --model started", "the run started has no student yet"),
  ("pair --model empty", "no config.json that names an architecture"),
  ("pair", "required: --model"),
  ("pair --model checkpoint --val other", r"only in .*\['cow', 'dog'\]"),
  ("pair --model checkpoint --val flat", "4 images of flat are not sorted"),
  ("pair --model checkpoint --val file.txt", "val must be a folder, and file"),
  (
    "pair --model checkpoint --per-class 5",
    "per_class is 5, and of 'cat' there are 4 images to learn from",
  ),
  ("pair --model checkpoint --per-class=-1", "per_class is -1; it must be at"),
  (
    "pair --model checkpoint --protocol svm",
    "protocol is 'svm'; there are knn",
  ),
  ("pair --model checkpoint --seed=4294967296", "seed is 4294967296; it must"),
  ("pair --model checkpoint --batch-size 0", "batch_size is 0"),
  ("pair --model checkpoint --seed=-2", "seed is -2; it must be at least 0"),
  ("pair --model checkpoint --out file.txt", "file.txt is a file; choose a"),
  (
    "pair --model checkpoint --teacher-also",
    "names no network that could be one",
  ),
]


@pytest.mark.parametrize(("line", "message"), EVALUATE)
def test_evaluate(line, message, place, monkeypatch):
  monkeypatch.chdir(place)
  refused(["evaluate", *line.split()], message)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"protocols": "knn"}, r"protocols is 'knn' \(str\); it must be .* tuple"),
    ({"per_class": 1.5}, r"per_class is 1.5 \(float\)"),
    ({"teacher": "resnet50"}, r"teacher is 'resnet50' \(str\)"),
    ({"model": None}, r"model is None \(NoneType\); it must be text or a path"),
  ],
)
def test_the_call_to_evaluate(fields, message, place):
  good = {"images": place / "pair", "model": place / "checkpoint"}
  with pytest.raises(ValueError, match=message):
    kd_jax.evaluate(**{**good, **fields})


COMPARE = [
  ("", "required: RUN"),
  ("a", "1 run is named, and a comparison needs two at least"),
  ("a a", "a and a are the same folder; name every run once"),
  ("a b ./a", r"\./a and a are the same folder"),
  ("a nowhere", "nowhere does not exist; name the folder of a run"),
  ("a file.txt", "file.txt is a file; name the folder of a run"),
  ("a empty", "empty is not the folder of a run: there is no config.json"),
  ("a gs://bucket/b", "gs://bucket/b is a URL"),
  ("a fresh", "fresh has no curves: its run wrote no metrics.jsonl"),
  ("a damaged", "damaged/summary.json cannot be read"),
  ("a busy", "busy is still written to by a run"),
  (
    "a b --out page.pdf",
    "it must be a file of this machine that ends with .ht",
  ),
  ("a b --out file.txt/page.html", "file.txt cannot be made|file.txt"),
]


@pytest.mark.parametrize(("line", "message"), COMPARE)
def test_compare(line, message, place, monkeypatch):
  monkeypatch.chdir(place)
  with lock.held(place / "busy"):
    refused(["compare", *line.split()], message)
  assert not [*place.rglob("*.html")]


def test_the_call_to_compare(place):
  with pytest.raises(ValueError, match="it must be a list of folders"):
    kd_jax.compare(place / "a")
  for runs, message in (
    (None, "runs is None; it must be a"),
    ([], "no run is"),
  ):
    with pytest.raises(ValueError, match=message):
      kd_jax.compare(runs)
  with pytest.raises(ValueError, match=r"a run is 3 \(int\)"):
    kd_jax.compare([place / "a", 3])


PUSH = [
  ("a", "required: OWNER/NAME"),
  ("nowhere me/birds", "there is no run 'nowhere'"),
  ("file.txt me/birds", "there is no run 'file.txt'"),
  ("empty me/birds", "empty is not the folder of a run"),
  ("started me/birds", "started is not the folder of a run: .*config.json"),
  ("damaged me/birds", "damaged/summary.json cannot be read"),
  ("a birds", "the repository is 'birds'; it must be OWNER/NAME"),
  ("a me/my/birds", "the repository is 'me/my/birds'"),
  ("a https://huggingface.co/me/birds", "the repository is 'https://hugg"),
  ("a me/-birds", "the repository is 'me/-birds'"),
  ("a me/birds --dry-run --revision=v/..", "revision is 'v/..'; it must be a"),
  ("a me/birds --privat", "unrecognized arguments: --privat"),
]


@pytest.mark.parametrize(("line", "message"), PUSH)
def test_push(line, message, place, monkeypatch):
  monkeypatch.chdir(place)
  refused(["push", *line.split()], message)


def test_the_call_to_push(place):
  for fields, message in (
    ({"repo": None}, r"repo is None \(NoneType\)"),
    ({"private": "yes"}, "private is 'yes'; it must be True or False"),
    ({"dry_run": 1}, "dry_run is 1; it must be True or False"),
    ({"revision": 2}, r"revision is 2 \(int\)"),
  ):
    with pytest.raises(ValueError, match=message):
      kd_jax.push(place / "a", **{"repo": "me/birds", **fields})
