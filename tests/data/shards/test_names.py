import braceexpand
import pytest

from kd_jax.data.shards import names


@pytest.mark.parametrize(
  "pattern",
  [
    "a.tar",
    "a-{000..012}.tar",
    "a-{0..12}.tar",
    "a-{8..11}.tar",
    "a-{08..110..7}.tar",
    "a-{3..-2}.tar",
    "a-{-05..1}.tar",
    "{a..e..2}{x,y}.tar",
    "{train,val}/{00..02}.tar",
    "a{b{1..3},c}{,d}.tar",
    "a{b}c{1..2}",
    "a{{1..2}}",
    "a{1,{2..4}}",
  ],
)
def test_braces_are_those_of_webdataset(pattern):
  assert names.expand(pattern) == list(braceexpand.braceexpand(pattern))


@pytest.mark.parametrize("pattern", ["a{1..2", "a}b", "a{1,{2,3}"])
def test_open_braces(pattern):
  with pytest.raises(ValueError, match="a brace is not closed"):
    names.expand(pattern)


def test_too_much_and_mixed_ranges():
  with pytest.raises(ValueError, match="means 1000000001 files; at most"):
    names.expand("{0..1000000000}")
  with pytest.raises(ValueError, match="1..b goes from letter to number"):
    names.expand("{1..b}")


@pytest.fixture
def tree(tmp_path):
  for name in ("b/2.tar", "a.tar", "b/10.tar", "c.txt", "b/x [1].tar"):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(name.encode())
  return tmp_path


def found(tree, *patterns):
  listed = names.find([f"{tree}/{p}" for p in patterns], "urls", (".tar",))
  return [file.path.removeprefix(f"{tree}/") for file in listed]


def test_folders_and_globs_are_sorted_and_lists_are_not(tree):
  assert found(tree, "") == ["a.tar", "b/10.tar", "b/2.tar", "b/x [1].tar"]
  assert found(tree, "b/?*.tar") == ["b/10.tar", "b/2.tar", "b/x [1].tar"]
  assert found(tree, "b/2.tar", "a.tar") == ["b/2.tar", "a.tar"]
  assert found(tree, "b/x [1].tar") == ["b/x [1].tar"]
  assert found(tree, "c.txt") == ["c.txt"]
  file = names.find([f"{tree}/a.tar"], "urls", (".tar",))[0]
  assert (file.size, file.name) == (5, "a.tar")
  assert file.mark == str((tree / "a.tar").stat().st_mtime_ns)


def test_what_is_not_there(tree):
  for patterns, message in (
    (("b/{1..4}.tar",), r"urls: 3 of 4 files .* \['.*/b/1.tar', .*3.tar', .*4"),
    (("no",), "urls: 1 of 1 files are not there"),
    (("*.zip",), r"there is no file \*.tar; set --config.data.urls"),
    (("a.tar", "*.tar"), "names 1 files twice, .*a.tar'.; their records"),
  ):
    with pytest.raises(ValueError, match=message):
      found(tree, *patterns)
  with pytest.raises(ValueError, match=r"no file is named; .*\{000..127\}.tar"):
    names.find([""], "urls", (".tar",))
  with pytest.raises(ValueError, match="mixes paths and addresses"):
    names.find(["s3://a/b.tar", "c.tar"], "urls", (".tar",))
  with pytest.raises(
    ValueError, match="'gs://a/b.tar' needs the package gcsfs"
  ):
    names.find(["gs://a/b.tar"], "urls", (".tar",))
  with pytest.raises(ValueError, match="nothing reads nfs9://; write s3://"):
    names.find(["nfs9://a/b.tar"], "urls", (".tar",))
