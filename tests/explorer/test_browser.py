"""The explorer as a person uses it, in headless Chromium."""

import csv
import shutil

import pytest

from sage_hf import Selection
from sage_hf.explorer import Offers, launch

from .conftest import NOTE

pytestmark = pytest.mark.slow
pytest.importorskip("gradio", reason="gradio is not installed: pip install 'sage-hf[explore]'")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as made:
        try:
            found = made.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"there is no Chromium: {error}")
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(selection):
    app = launch(selection, offers=Offers(folder="tenth"), say=lambda text: None, block=False)
    yield f"http://127.0.0.1:{app.server_port}/"
    app.close()


@pytest.fixture
def page(browser, address):
    """The page, open; what it asked for and what went wrong in it is looked at in the end."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    page.get_by_role("tab", name="Groups").wait_for()
    yield page
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert wrong == [] and page.title() == "sage-hf: 420 rows"
    page.close()


def pick(page, label, option):
    """Chooses in a dropdown."""
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option).first.click()


def see(page, text):
    page.get_by_text(text).first.wait_for(timeout=30_000)


def test_a_person_tries_a_choice_looks_at_rows_marks_labels_and_saves(page, tmp_path):
    see(page, "The selection as it was opened.")
    page.locator("#sage-fraction input[type=number]").fill("30")
    see(page, "newly kept")
    assert page.locator("h1").inner_text().startswith("126 of 420 rows kept")
    pick(page, "Strategy", "loss")
    pick(page, "Gate", "none")
    page.get_by_role("tab", name="Save and share").click()
    see(page, "--strategy loss --gate none")
    page.get_by_label("Folder on this machine").fill(str(tmp_path / "third"))
    page.get_by_role("button", name="Save", exact=True).click()
    see(page, "Saved to")
    assert Selection.load_from_disk(tmp_path / "third").config.strategy == "loss"
    page.get_by_role("button", name="Back to the selection").click()
    see(page, "The selection as it was opened.")
    page.get_by_role("tab", name="Rows").click()
    pick(page, "Rows", "doubted")
    page.get_by_text("doubted", exact=True).first.wait_for()
    first = page.locator(".sage-card").first.inner_text()
    page.locator("#sage-next-top").click()
    see(page, "Rows 13–24 of")  # noqa: RUF001
    page.locator("#sage-previous-bottom").click()
    see(page, "Rows 1–12 of")  # noqa: RUF001
    assert page.locator(".sage-card").first.inner_text() == first
    row = first.split("\n")[0].removeprefix("row ")
    pick(page, f"Mark of row {row}", "(suggested)")
    page.get_by_role("tab", name="Marked labels").click()
    see(page, "1 marked")
    with page.expect_download() as waited:
        page.locator("#sage-download").click()
    with open(waited.value.path(), encoding="utf-8", newline="") as file:
        (line,) = csv.DictReader(file)
    assert waited.value.suggested_filename == "label_issues.csv"
    assert line["sage_row"] == row and line["sage_action"] in (
        line["sage_suggested_label"],
        "class:" + line["sage_suggested_label"],
    )


def test_a_mistake_is_told_on_the_page(page):
    gate = page.get_by_label("Gate", exact=True)
    gate.fill("many")
    gate.press("Enter")
    see(page, "gate is 'many'. Give a number, or none.")
    assert page.get_by_role("alert").count() == 1 and "Traceback" not in page.content()


def test_what_comes_from_data_is_shown_as_it_is(page):
    page.get_by_role("tab", name="Rows").click()
    page.locator(".sage-card").first.wait_for()
    assert page.locator(".sage-text").first.inner_text().split("\n", 1)[1] == NOTE
    assert page.locator(".sage-card img:not([src^='data:'])").count() == 0
    page.get_by_role("tab", name="Groups").click()
    shown = page.locator(".sage-table tbody th").all_inner_texts()
    assert shown == [
        "zero", "<b>one</b>", "drop", "{{three}}", "${4+4}", "five, 'six'", "six", "seven", "eight", "nine"
    ]  # fmt: skip


@pytest.mark.parametrize("width", [400, 800, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_page(browser, address, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(address)
    page.get_by_role("tab", name="Rows").click()
    page.locator(".sage-card").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
