"""A browser lays the page out: nothing is wider than a phone, and nothing is complained of."""

import html
import json
import os
import re
import shutil
import subprocess

import pytest

from sage_hf.report import RowList, render_page, render_small

from .facts import HOSTILE, OneRow, facts, hostile_facts, seen

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: apt-get install chromium"),
]
# A page in a frame of some width; what is wider than that, and how wide the whole is, is written into the outer page.
OUTER = """<!DOCTYPE html><html><body><iframe id="frame" width="{width}" height="900" srcdoc="{page}"></iframe>
<pre id="found"></pre><script>
document.getElementById("frame").addEventListener("load", (event) => {{
  const inner = event.target.contentDocument, root = inner.documentElement;
  const within = (each) => each.closest(".scroll, pre, .skip, .defs") === null;
  const wide = [...inner.body.querySelectorAll("*")].filter(
    (each) => within(each) && each.getBoundingClientRect().right > root.clientWidth + 1);
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.clientWidth, whole: root.scrollWidth,
    wide: wide.map((each) => each.tagName + "." + (each.getAttribute("class") || "")),
    headings: [...inner.querySelectorAll("h1, h2")].map((each) => each.textContent),
    images: [...inner.images].map((each) => each.naturalWidth),
    ran: typeof event.target.contentWindow.ran,
  }});
}});
</script></body></html>"""


def laid_out(page, width, folder):
    """What the browser makes of a page: its measures, and its complaints."""
    (folder / "outer.html").write_text(OUTER.format(width=width, page=html.escape(page)), encoding="utf-8")
    command = [BROWSER, "--headless", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=5000"]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1500,1000", "--dump-dom"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # Chromium has no sandbox for root
        command.append("--no-sandbox")
    result = subprocess.run(
        [*command, (folder / "outer.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', result.stdout, re.DOTALL)
    return json.loads(html.unescape(found)), re.findall(r"CONSOLE.*", result.stderr)


def full_facts():
    picture = [[[0.0, 1.0] * 4] * 8]
    rows = [
        OneRow(number, label="a" * 90, doubt=0.9, suggestion="b" * 40, content={"text": "w" * 900, "x": "y z " * 99})
        for number in range(4)
    ]
    images = [OneRow(number, label="3", content={"pixel_values": picture}) for number in range(4)]
    return facts(
        seen(groups=30, names="a_rather_long_name_of_a_group_without_any_space_{}"),
        outcomes={"kept": 45, "not chosen": 100, "doubted": 20, "near-duplicate": 5, "hard": 5, "set aside": 5},
        typical=[RowList("Highest", "", rows, 9), RowList("Lowest", "", images)],
        command=["sage-hf", "select", "m" * 200],
        set_aside={"no tokens": list(range(1000, 1200))},
        set_aside_count=200,
    )


@pytest.mark.parametrize("width", [320, 400, 800, 1400])
def test_nothing_is_wider_than_the_screen(width, tmp_path):
    pytest.importorskip("PIL")
    found, complaints = laid_out(render_page(full_facts()), width, tmp_path)
    assert found["whole"] <= found["width"] <= width
    assert found["wide"] == []
    assert complaints == []
    assert found["headings"][0].endswith("rows kept")
    assert found["images"] == [8] * 4


@pytest.mark.parametrize("width", [400, 900])
def test_the_small_form_is_no_wider_than_its_cell(width, tmp_path):
    found, complaints = laid_out(render_small(full_facts()), width, tmp_path)
    assert found["whole"] <= found["width"]
    assert found["wide"] == []
    assert complaints == []


def test_nothing_of_the_data_runs(tmp_path):
    name = HOSTILE.replace("alert(1)", "window.ran = 1").replace("alert(2)", "window.ran = 2")
    # Without the policy, too: what is escaped needs none.
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render_page(hostile_facts(name)))
    assert "Content-Security-Policy" not in page
    found, complaints = laid_out(page, 800, tmp_path)
    assert found["ran"] == "undefined"
    assert complaints == []
