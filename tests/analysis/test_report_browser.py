"""The page in a browser: accessible, alone, and sorted by click and by key."""

import shutil

import pytest
from report_pages import write_record

from analysis.choices import draw_choices
from analysis.report import write_report
from analysis.resolution import draw_resolution

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]
SCRIPT = "<script>hacked = 1</script><img src=x onerror='hacked = 1'>"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def report(points, tmp_path_factory):
    """A page of two studies, with figures, a failed trial, a wide table, and names that are markup."""
    out = tmp_path_factory.mktemp("results")
    sweep = points([{"method": method, "n_bins": n} for method in ("MLP+Hist", "Ctrl Hist") for n in (5, 15, 100)])
    sweep.drop(method="MLP+Hist", n_bins=100, fold=2)
    folder = write_record(sweep.write(out / "bin_sweep"), "bin_sweep", settings={SCRIPT: SCRIPT})
    draw_resolution([folder], folder)
    choices = points([{"method": "MLP+Hist"}, {"method": "MLP+Hist", "variant": SCRIPT}])
    folder = write_record(choices.write(out / "open_choices"), "open_choices")
    draw_choices(folder, folder)
    return write_report([out])


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (where there is no browser it is not needed)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, report):
    """Opens the page; what it asked for, and what the console said, stand in `asked` and `said`."""
    contexts = []

    def opened(width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.asked, page.said = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(report.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_axe_finds_nothing_serious(opened, width, scheme):
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415

    page = opened(width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    found = Axe().run(page).response
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
    assert len(found["passes"]) > 20
    assert page.evaluate("document.documentElement.scrollWidth") == width  # tables scroll, the page does not


def test_nothing_is_asked_for_and_no_name_is_run(opened, report):
    page = opened()
    assert [url for url in page.asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.said == []  # no word of the security policy either
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor") == "rgb(255, 255, 255)"


def column(page, place):
    cells = page.locator("table.sortable").first.locator("tbody tr").all()
    return [float(row.locator("> *").nth(place).get_attribute("data-value")) for row in cells]


def test_columns_are_sorted_by_click_and_by_key(opened):
    page = opened(scheme="dark")
    heading = page.locator("table.sortable").first.locator("thead th").nth(1)
    assert heading.inner_text() == "Bins"
    before = column(page, 1)
    heading.locator("button").click()
    assert column(page, 1) == sorted(before) == [5, 5, 15, 15, 100, 100]
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert column(page, 1) == sorted(before, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    other = page.locator("table.sortable").first.locator("thead th").nth(2).locator("button")
    other.focus()
    page.keyboard.press("Space")
    assert column(page, 2) == sorted(column(page, 2))
    assert heading.get_attribute("aria-sort") is None


def test_a_wide_table_shows_all_its_columns_when_asked(opened):
    page = opened(360)
    extra = page.locator("table.sortable").first.locator("thead th.extra")
    assert extra.count() > 10
    assert not extra.first.is_visible()
    page.locator("input.all").first.check()
    assert extra.first.is_visible()


def test_on_paper_there_are_no_buttons_to_press_and_all_is_open(opened):
    page = opened()
    page.emulate_media(media="print")
    assert not page.locator("input.all").first.is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert page.pdf(format="A4").startswith(b"%PDF")
