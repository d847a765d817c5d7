from __future__ import annotations

import base64
import html.parser
import io
import json
import math
import pathlib

import numpy as np
import pytest
from PIL import Image

from kd_jax.align import basis
from kd_jax.report import metrics, plots, tables
from kd_jax.report import page as page_lib
from kd_jax.report.pictures import sheet as sheet_lib

SINGULAR = 50.0 * np.arange(1, 33) ** -0.7


class Page(html.parser.HTMLParser):
  """Collects text, tags and images; unbalanced tags fail."""

  def __init__(self, text: str):
    super().__init__()
    self.text: list[str] = []
    self.tags: list[str] = []
    self.images: list[str] = []
    self._open: list[str] = []
    self.feed(text)
    assert self._open == []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    if tag == "img":
      self.images.append(dict(attrs)["src"])
    if tag not in ("img", "meta"):
      self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


def decode(source: str) -> Image.Image:
  prefix = "data:image/png;base64,"
  assert source.startswith(prefix)
  image = Image.open(io.BytesIO(base64.b64decode(source[len(prefix) :])))
  image.load()
  return image


def write_run(workdir: pathlib.Path, steps: int = 3) -> pathlib.Path:
  with metrics.Writer(workdir) as writer:
    for step in range(1, steps + 1):
      terms = {"loss/feature": 2.0 / step, "loss/total": 3.0 / step}
      writer.write(step, {**terms, "images_per_s": 1000.0 + step})
    writer.write(
      steps,
      {"eval/knn": 0.8765, "eval/probe": 0.91, "eval/feature_error": 0.1234},
    )
  return workdir


def write_basis(workdir: pathlib.Path) -> None:
  dim = len(SINGULAR)
  found = basis.Basis(
    mean=np.zeros(dim),
    basis=np.eye(dim, dtype=np.float32),
    singular_values=SINGULAR,
    channel_variance=np.ones(dim),
    count=100,
    fingerprint="teacher",
  )
  basis.save(workdir / "artifact.npz", found)


def write_json(workdir: pathlib.Path, name: str, value: object) -> None:
  (workdir / name).write_text(json.dumps(value))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
  """A page with everything: (workdir, parsed page)."""
  workdir = write_run(tmp_path_factory.mktemp("full"))
  write_basis(workdir)
  summary = {"student": "resnet18 <tiny>", "images": 128000, "student_width": 8}
  write_json(workdir, "summary.json", summary)
  write_json(workdir, "config.json", {"optim": {"lr": 0.1}, "seed": 7})
  short = write_run(tmp_path_factory.mktemp("short"), steps=1)
  path = page_lib.write_report(
    workdir,
    title="Digits & more",
    tables={"Transfer": (("student", "accuracy"), [("distilled", 0.951)])},
    sections={"From scratch": short},
  )
  assert path == workdir / "report.html"
  return workdir, Page(path.read_text(encoding="utf-8"))


def test_the_page_is_self_contained(full):
  workdir, page = full
  source = (workdir / "report.html").read_text(encoding="utf-8")
  assert "http" not in source and "script" not in page.tags
  assert len(page.images) == 5 + 4
  for image in map(decode, page.images):
    assert image.width >= 800
    alpha = np.asarray(image)[..., 3]
    assert 0.01 < np.mean(alpha > 0) < 0.5  # ink on a transparent ground


def test_images_also_lie_in_the_folder(full):
  workdir, page = full
  names = ("loss", "accuracy", "feature_error", "throughput", "spectrum")
  for name, source in zip(names, page.images, strict=False):
    png = (workdir / "plots" / f"{name}.png").read_bytes()
    assert base64.b64encode(png).decode() in source


def test_text_of_the_page(full):
  _, page = full
  text = "|".join(page.text)
  assert page.text.count("Digits & more") == 2  # title and heading
  assert "student|resnet18 <tiny>|images|128,000|student width|8" in text
  assert "Transfer|student|accuracy|distilled|0.9510" in text
  assert "loss/feature|2.000|0.6667|3" in text
  assert "images_per_s|1,001|1,003|3" in text
  assert "eval/knn|0.8765|0.8765|3" in text
  assert "optim.lr|0.1|seed|7" in text
  assert text.index("From scratch") > text.index("Configuration")


def test_missing_pieces_are_named_in_one_line(full):
  _, page = full
  (note,) = [text for text in page.text if text.startswith("Not available")]
  assert note == "Not available here: summary.json, config.json, spectrum."


def test_an_empty_folder_still_gives_a_page(tmp_path):
  page = Page(page_lib.write_report(tmp_path).read_text())
  assert page.images == [] and "table" not in page.tags
  assert tmp_path.name in page.text
  (note,) = [text for text in page.text if text.startswith("Not available")]
  assert "metrics.jsonl" in note and "throughput" in note
  assert not (tmp_path / "plots").exists()


def test_values_that_are_not_finite_are_pointed_out(tmp_path):
  with metrics.Writer(tmp_path) as writer:
    writer.write(1, {"loss/a": 1.0})
    writer.write(2, {"loss/a": math.nan})
    writer.write(3, {"loss/a": math.inf})
  page = Page(page_lib.write_report(tmp_path).read_text())
  assert len(page.images) == 1
  found = "Not finite: loss/a is nan at step 2; curves have gaps."
  assert found in page.text


def drawn(monkeypatch, call):
  """The figure that `call` draws."""
  kept = []
  png = plots.png
  monkeypatch.setattr(plots, "png", lambda fig: kept.append(fig) or png(fig))
  assert call().startswith(b"\x89PNG")
  return kept[0]


def test_loss_terms_are_drawn_on_a_log_scale_if_positive(monkeypatch, tmp_path):
  lines = metrics.read(write_run(tmp_path))
  (ax,) = drawn(monkeypatch, lambda: plots.loss(lines)).axes
  assert ax.get_yscale() == "log"
  assert ax.get_legend_handles_labels()[1] == ["feature", "total"]
  np.testing.assert_allclose(ax.lines[0].get_xydata()[:, 1], [2, 1, 2 / 3])
  assert ax.get_xlabel() == "step" and ax.get_ylabel() == "loss"


def test_loss_terms_with_a_negative_value_are_drawn_on_a_linear_scale(
  monkeypatch,
):
  lines = [{"step": 1, "loss/a": 1.0}, {"step": 2, "loss/a": -1.0}]
  (ax,) = drawn(monkeypatch, lambda: plots.loss(lines)).axes
  assert ax.get_yscale() == "linear"


def test_accuracies_carry_their_last_value(monkeypatch):
  lines = [
    {"step": 1, "eval/knn": 0.5, "eval/student_accuracy": 0.25, "eval/x": 1.0},
    {"step": 2, "eval/knn": 0.75},
  ]
  (ax,) = drawn(monkeypatch, lambda: plots.accuracy(lines)).axes
  labels = ax.get_legend_handles_labels()[1]
  assert labels == ["knn 75.0 %", "student_accuracy 25.0 %"]
  np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 50], [2, 75]])
  single = [line for line in ax.lines if len(line.get_xdata()) == 1]
  assert all(line.get_marker() == "o" for line in single) and single


def test_figures_of_transfer_are_accuracies(monkeypatch):
  names = ("miou", "pixel_accuracy", "top1", "top5", "mean_per_class")
  names += ("ap", "ap50", "mask_ap")
  others = {"eval/loss": 1.0, "eval/ap_small": 0.5, "eval/gap": 0.5}
  lines = [{"step": 1} | others | {f"eval/{x}": 0.5 for x in names}]
  (ax,) = drawn(monkeypatch, lambda: plots.accuracy(lines)).axes
  labels = ax.get_legend_handles_labels()[1]
  assert labels == [f"{name} 50.0 %" for name in names]


def test_figures_without_data_are_left_out():
  lines = [{"step": 1, "grad_norm": 1.0, "loss/a": math.nan}]
  drawings = (
    plots.loss,
    plots.accuracy,
    plots.feature_error,
    plots.throughput,
  )
  assert [draw(lines) for draw in drawings] == [None] * 4


@pytest.mark.parametrize("width", [8, 32, 64])
def test_spectrum_marks_the_kept_share(monkeypatch, tmp_path, width):
  write_basis(tmp_path)
  found = basis.load(tmp_path / "artifact.npz")
  fig = drawn(monkeypatch, lambda: plots.spectrum(found, width))
  left, right = fig.axes
  energy = SINGULAR**2
  kept = min(width, 32)
  share = 100 * energy[:kept].sum() / energy.sum()
  title = right.get_title(loc="left")
  assert title == f"{kept} of 32 directions keep {share:.1f} %"
  assert left.get_yscale() == "log"
  np.testing.assert_allclose(left.lines[0].get_ydata(), SINGULAR)
  curve = 100 * np.cumsum(energy) / energy.sum()
  np.testing.assert_allclose(right.lines[0].get_ydata(), curve)
  marks = [line.get_xdata()[0] for line in right.lines[1:]]
  assert marks == [kept, kept]


def test_spectrum_without_a_known_width(tmp_path):
  write_basis(tmp_path)
  page = Page(page_lib.write_report(tmp_path).read_text())
  assert len(page.images) == 1
  assert any("student_width in summary.json" in text for text in page.text)


def test_damaged_files_are_named(tmp_path):
  (tmp_path / "config.json").write_text('{"a": ')
  with pytest.raises(ValueError, match=r"config\.json is no valid JSON"):
    page_lib.write_report(tmp_path)
  write_json(tmp_path, "config.json", [1])
  with pytest.raises(ValueError, match="holds a list, not an object"):
    page_lib.write_report(tmp_path)
  (tmp_path / "config.json").unlink()
  write_basis(tmp_path)
  write_json(tmp_path, "summary.json", {"student_width": "eight"})
  with pytest.raises(ValueError, match="student_width 'eight'"):
    page_lib.write_report(tmp_path)
  (tmp_path / "artifact.npz").write_bytes(b"PK\x03\x04 cut")
  write_json(tmp_path, "summary.json", {"student_width": 8})
  with pytest.raises(ValueError, match=r"artifact\.npz"):
    page_lib.write_report(tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
  with pytest.raises(ValueError, match="pass the workdir of a run"):
    page_lib.write_report(tmp_path / "nowhere")


def test_rows_of_another_length_than_their_header(tmp_path):
  given = {"Transfer": (("a", "b"), [(1, 2), (3,)])}
  with pytest.raises(ValueError, match="'Transfer' row 2 has 1 cells.* 2"):
    page_lib.write_report(tmp_path, tables=given)


def test_results_of_several_runs_come_with_a_picture(tmp_path):
  run = write_run(tmp_path / "run")
  sheet_lib.keep(tmp_path, "comparison", sheet_lib.Sheet(20).png())
  path = page_lib.write_report(
    tmp_path,
    tables={"Transfer": (("kind", "accuracy"), [("kdep", "91.0 ± 1.4 %")])},
    sections={"first": run},
  )
  page = Page(path.read_text(encoding="utf-8"))
  text = "|".join(page.text)
  assert "kdep|91.0 ± 1.4 %" in text and "metrics.jsonl" not in text
  png = (tmp_path / "pictures" / "comparison.png").read_bytes()
  assert base64.b64encode(png).decode() in path.read_text()


def test_pictures_of_a_run_are_in_its_page(tmp_path):
  sheet = sheet_lib.Sheet(20)
  sheet.image(np.full((8, 8, 3), 9, np.uint8), 0, 0, 16)
  sheet_lib.keep(tmp_path, "neighbours", sheet.png())
  page = Page(page_lib.write_report(tmp_path).read_text())
  (source,) = page.images
  assert decode(source).size == (sheet_lib.WIDTH, 20)
  assert "Pictures" in page.text and "Curves" not in page.text


def test_pictures_have_sentences_and_reasons(tmp_path):
  png = sheet_lib.Sheet(20).png()
  for name in ("map_of_student", "map_of_teacher", "patch_colours"):
    sheet_lib.keep(tmp_path, name, png, f"What {name} shows & <more>.")
  sheet_lib.keep(tmp_path, "attention", None, "There is no attention.")
  path = page_lib.write_report(tmp_path)
  page = Page(path.read_text())
  assert len(page.images) == page.tags.count("figcaption") == 3
  text = "|".join(page.text)
  names = ("patch_colours", "map_of_teacher", "map_of_student")
  said = "|".join(f"What {name} shows & <more>." for name in names)
  assert f"Pictures|{said}|There is no attention.|" in text
  assert path.read_text().count("<figure class=wide>") == 1


def test_whatever_pictures_and_tables_lie_in_the_folder_are_shown(tmp_path):
  for height, name in ((20, "masks"), (30, "views"), (40, "confusion")):
    sheet_lib.keep(tmp_path, name, sheet_lib.Sheet(height).png())
  few = tables.Table.of("Worst", ("class", "IoU"), [("cat <1>", 0.5)])
  tables.keep(tmp_path, "worst", few)
  many = tables.Table.of("All classes", ("class",), [(i,) for i in range(99)])
  tables.keep(tmp_path, "all", many)
  page = Page(page_lib.write_report(tmp_path).read_text())
  assert [decode(x).height for x in page.images] == [30, 40, 20]
  text = "|".join(page.text)
  assert "Worst|class|IoU|cat <1>|0.5000" in text
  assert page.tags.count("h2") == 2 and page.tags.count("details") == 1
  assert text.index("All classes|class|0|1") < text.index("Worst")


def test_files_that_hold_no_table_are_named(tmp_path):
  (tmp_path / "tables").mkdir()
  for text in ("[", "[1]", '{"title": "a", "header": ["b"]}'):
    (tmp_path / "tables" / "bad.json").write_text(text)
    with pytest.raises(ValueError, match=r"bad\.json holds no table"):
      page_lib.write_report(tmp_path)
