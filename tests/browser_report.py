"""Open a page in a real browser, headless: ``python tests/browser_report.py PAGE.html [OUT]``. Not in the suite.

Needs Chromium (Debian: chromium), nothing else. The page is opened from disk, no host name can be resolved; a script
put at its end moves the slider, sorts, picks a class and switches the theme, and what it saw is read back (of a page
of `yolite explain`, which has neither slider nor classes, the rest). Fails on an error or a request on the console, a
number that does not move, or a page wider than a phone.
OUT gets screenshots: light, dark, and both at a phone's width.
"""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--virtual-time-budget=20000"]  # fmt: skip
PHONE, DESK, TALL = 390, 1280, 16000

PROBE = r"""
<script>
window.addEventListener("load", function () {
  function all(query, read) { return Array.from(document.querySelectorAll(query)).map(read); }
  function text(node) { return node.textContent; }
  function wait(then) { setTimeout(then, 200); }
  function by(id) { return document.getElementById(id); }
  function numbers() {
    return {
      all: ["precision", "recall", "f", "counts"].map(function (name) { return text(by("all-" + name)); }),
      table: all("#per-class td.moving", text), boxes: all("figure.picture .box", text).length,
      picture: all("figure.picture .counts", text)[0] || "", shown: text(by("confidence")),
      mark: document.querySelector("#chart-threshold .mark").getAttribute("x1")
    };
  }
  function set(id, kind, value) {
    by(id).value = value;
    by(id).dispatchEvent(new Event(kind, {bubbles: true}));
  }
  function column(n) {
    return all("#per-class tbody tr", function (row) { return text(row.cells[n]); });
  }
  function curve() { return all("#chart-pr polyline", function (line) { return line.getAttribute("points"); }).join(); }
  function back() { return getComputedStyle(document.body).backgroundColor; }
  var seen = {errors: window.problems, steps: {}};
  function theme() {
    seen.theme = [back()];
    by("theme").click();
    seen.theme.push(back());
    by("theme").click();
    seen.wide = [document.documentElement.scrollWidth, window.innerWidth];
    seen.broken = all("main img", function (image) { image.loading = "eager"; return image; })
      .filter(function (image) { return image.complete && !image.naturalWidth; }).length;
    seen.requests = performance.getEntriesByType("resource")
      .map(function (entry) { return entry.name.slice(0, 60); })
      .filter(function (name) { return !name.startsWith("data:"); });
  }
  if (!by("slider")) {
    wait(function () { theme(); parent.postMessage(JSON.stringify(seen), "*"); });
    return;
  }
  wait(function () {
    seen.steps.start = numbers();
    set("slider", "input", 0.1);
    wait(function () {
      seen.steps.low = numbers();
      set("slider", "input", 0.9);
      wait(function () {
        seen.steps.high = numbers();
        by("reset").click();
        var head = document.querySelectorAll("#per-class thead th")[2];
        head.click(); seen.down = column(2); head.click(); seen.up = column(2);
        seen.pr = [curve()];
        set("class", "change", "0");
        seen.pr.push(curve());
        var svg = document.querySelector("#chart-pr svg"), box = svg.getBoundingClientRect();
        var place = {clientX: box.left + box.width / 2, clientY: box.top + 20, bubbles: true};
        svg.dispatchEvent(new PointerEvent("pointermove", place));
        seen.hover = all("#chart-pr .says", text);
        theme();
        wait(function () { seen.steps.end = numbers(); parent.postMessage(JSON.stringify(seen), "*"); });
      });
    });
  });
});
</script>
"""
EARLY = """<script>
window.problems = [];
window.addEventListener("error", function (event) { window.problems.push(event.message); });
</script>"""
FRAME = """<!doctype html><body style="margin:0">
<iframe src="{name}" style="border:0;width:{width}px;height:{height}px"></iframe>
<script>
window.addEventListener("message", function (event) {{
  var out = document.body.appendChild(document.createElement("pre"));
  out.id = "probe";
  out.textContent = event.data;
}});
</script>"""
"""The page is looked at in a frame: a headless window is never as narrow as a phone."""


def chromium(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page; return what the browser said."""
    with tempfile.TemporaryDirectory() as profile:
        command = ["chromium", *FLAGS, f"--user-data-dir={profile}", *flags, page.absolute().as_uri()]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)


def probe(report: Path, folder: Path, width: int) -> dict:
    """Do everything a reader does; return what was seen."""
    page, frame = folder / "probe.html", folder / "frame.html"
    text = report.read_text(encoding="utf-8")
    text = text.replace("<head>", f"<head>{EARLY}", 1).replace("</body>", f"{PROBE}</body>")
    page.write_text(text, encoding="utf-8")
    frame.write_text(FRAME.format(name=page.name, width=width, height=900))
    done = chromium(frame, f"--window-size={max(width, 500)},900", "--dump-dom")
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line or "net_error" in line]
    assert not said, said
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)
    assert found, f"the page's script did not come to its end: {done.stderr[-500:]}"
    seen: dict = json.loads(html.unescape(found[1]))
    return seen


def check(seen: dict, width: int) -> None:
    """Raise AssertionError where something did not do what it is for."""
    assert seen["errors"] == []
    assert seen["requests"] == [], seen["requests"]
    assert seen["broken"] == 0
    assert seen["theme"][0] != seen["theme"][1]
    assert seen["wide"][0] <= seen["wide"][1], f"at {width} px the page is {seen['wide'][0]} px wide"
    if seen["steps"]:
        check_report(seen)


def check_report(seen: dict) -> None:
    """Raise AssertionError where something of an evaluation's report did not do what it is for."""
    low, high, start, end = (seen["steps"][k] for k in ("low", "high", "start", "end"))
    assert (low["shown"], high["shown"]) == ("0.100", "0.900")
    if any(cell not in ("-", "0.000") for cell in low["table"]):
        assert low["all"] != high["all"]
        assert low["table"] != high["table"]
        assert low["mark"] != high["mark"]
    if start["picture"]:
        assert low["boxes"] > high["boxes"] or low["picture"] != high["picture"]
    assert start["all"] == end["all"]
    values = [float(v) for v in seen["down"] if v != "-"]
    assert values == sorted(values, reverse=True)
    assert sorted(seen["up"]) == sorted(seen["down"])
    assert len(seen["down"]) < 2 or len(set(seen["down"])) < 2 or seen["up"] != seen["down"]
    assert len(seen["down"]) < 2 or seen["pr"][0] != seen["pr"][1] or not seen["pr"][0]
    assert not seen["pr"][1] or any(words.startswith("precision") for words in seen["hover"])


def screenshots(report: Path, out: Path) -> None:
    """Take pictures in both themes and widths."""
    out.mkdir(parents=True, exist_ok=True)
    text = report.read_text(encoding="utf-8")
    page, frame = out / "page.html", out / "frame.html"
    for theme in ("light", "dark"):
        page.write_text(text.replace('<html lang="en"', f'<html lang="en" data-theme="{theme}"', 1), encoding="utf-8")
        for width in (DESK, PHONE):
            frame.write_text(FRAME.format(name=page.name, width=width, height=TALL))
            chromium(frame, f"--window-size={max(width, 500)},{TALL}", f"--screenshot={out / f'{theme}-{width}.png'}")
    page.unlink()
    frame.unlink()


def main(arguments: list[str]) -> int:
    """Check one report."""
    report = Path(arguments[0])
    with tempfile.TemporaryDirectory() as folder:
        for width in (DESK, PHONE):
            seen = probe(report, Path(folder), width)
            check(seen, width)
            numbers = [f"{step} {seen['steps'][step]['all']}" for step in ("start", "high") if seen["steps"]]
            print(f"{report} at {width} px: {', '.join(numbers)} good")
    if len(arguments) > 1:
        screenshots(report, Path(arguments[1]))
        print(f"screenshots: {arguments[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
