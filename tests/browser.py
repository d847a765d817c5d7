"""What a real browser makes of a page: headless Chromium, driven by Playwright.

Needs `playwright` (requirements-dev.txt) and a Chromium: Debian's, or the one
that Playwright brings along.
"""

import contextlib
import dataclasses
import os
import shutil

import pytest

WIDTHS = (360, 1280)
SCHEMES = ("light", "dark")
NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = (
  "no Chromium to look at pages with: apt-get install chromium, or "
  "python -m playwright install --with-deps chromium"
)
QUIET = (
  *("--disable-gpu", "--no-first-run", "--disable-background-networking"),
  *("--disable-component-update", "--disable-sync"),
)
# Everything that shows text, with its colour and the ground behind it; images;
# and what sticks out of the page without a box of its own that scrolls.
READ = """() => {
  const inside = x => x.closest(".scroll") || x.closest("input:checked + span");
  const shown = [...document.body.querySelectorAll("*")].filter(
    x => x.getClientRects().length);
  const texts = shown.filter(x => [...x.childNodes].some(
    n => n.nodeType == 3 && n.data.trim()));
  const ground = x => {
    const color = getComputedStyle(x).backgroundColor;
    const clear = color.endsWith(", 0)") && x.parentElement;
    return clear ? ground(x.parentElement) : color;
  };
  return {
    across: document.documentElement.scrollWidth,
    ground: ground(document.body),
    texts: texts.map(x => [x.textContent.trim().slice(0, 40),
      getComputedStyle(x).color, ground(x)]),
    images: [...document.images].map(x => [x.alt, x.naturalWidth]),
    outside: shown.filter(x => !inside(x) &&
      x.getBoundingClientRect().right > innerWidth + 0.5).map(x => x.tagName),
  };
}"""


@dataclasses.dataclass(frozen=True)
class Seen:
  """A page at one width, in one colour scheme.

  Attributes:
    across: pixels that the page takes.
    ground: luminance of its background.
    contrast: {text: its contrast to its ground}, WCAG 2.
    images: {alternative text: width of the file in pixels}.
    outside: tags of what sticks out.
    noises: what was said on the console.
    requests: addresses beside the page itself.
  """

  across: int
  ground: float
  contrast: dict
  images: dict
  outside: list
  noises: list
  requests: list


@contextlib.contextmanager
def chromium():
  """A browser; fails where there is none."""
  try:
    from playwright import sync_api
  except ImportError:
    pytest.fail("no playwright: pip install -r requirements-dev.txt")
  with sync_api.sync_playwright() as playwright:
    own = playwright.chromium.executable_path
    path = next(filter(None, map(shutil.which, (*NAMES, own))), None)
    if path is None:
      pytest.fail(MISSING)
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    args = [*QUIET, *root]
    browser = playwright.chromium.launch(executable_path=path, args=args)
    yield browser
    browser.close()


@contextlib.contextmanager
def opened(browser, path, width, scheme):
  """(page, what its console said, what it asked for)."""
  size = {"width": width, "height": 800}
  context = browser.new_context(viewport=size, color_scheme=scheme)
  page, noises, requests = context.new_page(), [], []
  page.on("console", lambda message: noises.append(message.text))
  page.on("pageerror", lambda error: noises.append(str(error)))
  page.on("request", lambda request: requests.append(request.url))
  page.goto(path.resolve().as_uri())
  yield page, noises, requests
  context.close()


def see(browser, path, width, scheme):
  """A page with all that is folded opened."""
  with opened(browser, path, width, scheme) as (page, noises, requests):
    page.eval_on_selector_all("details", "all => all.map(x => x.open = true)")
    found = page.evaluate(READ)
  own = path.resolve().as_uri()
  return Seen(
    across=found["across"],
    ground=luminance(found["ground"]),
    contrast={text: contrast(*pair) for text, *pair in found["texts"]},
    images=dict(found["images"]),
    outside=found["outside"],
    noises=noises,
    requests=[x for x in requests if x != own and not x.startswith("data:")],
  )


def contrast(one, other):
  """Ratio of two colours as a browser writes them, 1 to 21."""
  low, high = sorted(map(luminance, (one, other)))
  return (high + 0.05) / (low + 0.05)


def luminance(color):
  """'rgb(255, 0, 0)' -> 0.2126, WCAG 2."""
  parts = color.partition("(")[2].rstrip(")").split(",")[:3]
  shares = [float(x) / 255 for x in parts]
  linear = [
    x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shares
  ]
  return sum(
    a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
  )
