"""Reports as people see them, on a phone and on a screen, light and dark."""

from __future__ import annotations

import dataclasses
import json

import browser as browser_lib
import numpy as np
import photographs
import pytest

import runs
from kd_jax import main
from kd_jax.report import comparison, page, tables
from kd_jax.report.pictures import sheet as sheet_lib
from kd_jax.running import results

pytestmark = pytest.mark.slow
CONFIG = f"{runs.ROOT}/tests/configs/pictures.py"
FIGURES = [
  f"{kind}{what}"
  for kind in ("", "mask_")
  for what in ("ap", "ap50", "ap75", "ap_small", "ar1", "ar10", "ar100")
]


@pytest.fixture(scope="module")
def chromium():
  with browser_lib.chromium() as found:
    yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """The folder of a run of a few steps, with all its pictures."""
  photos = photographs.save(tmp_path_factory.mktemp("photos") / "all", 20)
  workdir = tmp_path_factory.mktemp("run")
  fields = ("--config", CONFIG, f"--config.data.dir={photos}")
  assert main.main([*fields, "--workdir", str(workdir)]) == 0
  return workdir


@pytest.fixture(scope="module")
def several(tmp_path_factory, run):
  """Many students compared, with the run as one of them."""
  root = tmp_path_factory.mktemp("several")
  rng = np.random.default_rng(0)
  columns = [f"{name} (mean_per_class)" for name in ("pets", "cars", "dtd")]
  rows = ("from scratch", "KDEP, SVD and power temperature", "a_name_" * 9)
  values = {row: {c: rng.uniform(size=3) for c in columns} for row in rows}
  given = comparison.Comparison(values, rows[0], "What students are worth")
  comparison.write(root, given)
  page.write_report(root, sections={"KDEP": run})
  return root


@pytest.fixture(scope="module")
def detected(tmp_path_factory):
  """A table with more figures than a screen has room for, and long ones."""
  root = tmp_path_factory.mktemp("detected")
  figures = {name: [0.123, 0.456] for name in FIGURES}
  about = {"trains": "network", "start": "nothing", "rate": 0.02, "search": {}}
  about |= {"seeds": [0, 1], "best_test": False, "evals": {}, "shown": FIGURES}
  header, rows = results.rows_of({**about, "figures": figures})
  classes = [(f"class {i}", *[i / 99] * 6, 10**i) for i in range(9)]
  names = ("class", *(f"AP{i} (%)" for i in range(6)), "objects")
  tables.keep(root, "classes", tables.Table.of("Classes", names, classes))
  many = [(i, "x" * i) for i in range(60)]
  tables.keep(root, "many", tables.Table.of("Many", ("a", "b"), many))
  sheet_lib.keep(root, "best", sheet_lib.Sheet(300).png(), "word" * 60)
  title = "a_path_without_a_space/" * 5
  page.write_report(root, title=title, tables={"Result": (header, rows)})
  return root


@pytest.mark.parametrize("scheme", browser_lib.SCHEMES)
@pytest.mark.parametrize("width", browser_lib.WIDTHS)
@pytest.mark.parametrize("kind", ["run", "several", "detected"])
def test_a_page_fits_and_reads_well(chromium, request, kind, width, scheme):
  path = request.getfixturevalue(kind) / "report.html"
  seen = browser_lib.see(chromium, path, width, scheme)
  assert seen.across == width and seen.outside == []
  assert seen.noises == [] and seen.requests == []
  assert (seen.ground > 0.9) == (scheme == "light")
  assert seen.ground > 0.9 or seen.ground < 0.02
  assert len(seen.contrast) > 10 and min(seen.contrast.values()) >= 4.5
  assert seen.images and all(pixels > 700 for pixels in seen.images.values())


def test_all_pictures_of_a_run_are_in_its_page(chromium, run):
  seen = browser_lib.see(chromium, run / "report.html", 1280, "light")
  assert {
    *("views", "neighbours", "patch colours", "attention"),
    *("map of teacher", "map of student"),
  } <= set(seen.images)
  text = (run / "report.html").read_text()
  assert "the student, whose network shows no attention" in text
  for name in ("patch_colours", "attention", "map_of_student"):
    png = (run / "pictures" / f"{name}.png").read_bytes()
    assert len(png) > 10_000


def test_the_same_run_draws_the_same_pictures(run, tmp_path):
  config = json.loads((run / "config.json").read_text())
  fields = ("--config", CONFIG, f"--config.data.dir={config['data']['dir']}")
  assert main.main([*fields, "--workdir", str(tmp_path)]) == 0
  for path in (run / "pictures").iterdir():
    again = tmp_path / "pictures" / path.name
    assert again.read_bytes() == path.read_bytes(), path.name


def test_a_tap_enlarges_a_picture_on_a_phone(chromium, run):
  with browser_lib.opened(chromium, run / "report.html", 360, "dark") as (
    shown,
    *_,
  ):
    image = shown.locator("figure.wide img").first
    assert image.bounding_box()["width"] < 330
    assert shown.locator(".tap").is_visible()
    image.click()
    assert image.bounding_box()["width"] == 860
    across = shown.evaluate("document.documentElement.scrollWidth")
    assert across == 360
    image.click()
    assert image.bounding_box()["width"] < 330
  with browser_lib.opened(chromium, run / "report.html", 1280, "dark") as (
    shown,
    *_,
  ):
    assert not shown.locator(".tap").is_visible()


def test_wide_tables_scroll_in_their_own_box(chromium, detected):
  with browser_lib.opened(chromium, detected / "report.html", 360, "light") as (
    shown,
    *_,
  ):
    box = shown.locator(".scroll").first
    inner, outer = box.evaluate("x => [x.scrollWidth, x.clientWidth]")
    assert inner > 1000 and outer < 360
    cell = shown.get_by_role("cell", name="±").first
    assert cell.bounding_box()["height"] > 20
    lines = cell.evaluate(
      "x => (r => (r.selectNodeContents(x), r.getClientRects().length))"
      "(document.createRange())"
    )
    assert lines == 1


def test_what_is_wrong_is_seen(chromium, tmp_path):
  path = tmp_path / "bad.html"
  path.write_text(
    "<body style='background: #fff; color: #999'>grey"
    "<p style='width: 999px'>wide</p><img alt=gone src='gone.png'>"
    "<script>console.error('loud'); nothing()</script>"
  )
  seen = browser_lib.see(chromium, path, 360, "dark")
  assert seen.across >= 999 and "P" in seen.outside
  assert seen.contrast["wide"] == pytest.approx(2.85, abs=0.01)
  assert seen.images == {"gone": 0}
  assert "loud" in seen.noises and any("nothing" in x for x in seen.noises)
  assert len(seen.requests) == 1 and seen.requests[0].endswith("gone.png")
  assert dataclasses.asdict(seen)["ground"] == pytest.approx(1)
  assert browser_lib.contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == 21
