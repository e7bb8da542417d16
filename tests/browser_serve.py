"""The page of `yolite serve` in a real browser, outside the default suite.

    python tests/browser_serve.py WEIGHTS PICTURE SCREENSHOT.png

Needs Debian's chromium and chromium-driver and the package selenium. Chooses the picture, waits for its boxes, moves
the slider, asks for a broken file, drops the picture; exits with 1 where the page does not do as it should.
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).resolve().parent.parent


def browser() -> webdriver.Chrome:
    """Start Chromium without a window."""
    options = webdriver.ChromeOptions()
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1000,1000",
                 "disable-quic", "no-first-run", "disable-sync", "disable-background-networking",
                 "disable-component-update"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.binary_location = "/usr/bin/chromium"
    return webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))


DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), letter => letter.charCodeAt(0));
const carried = new DataTransfer();
carried.items.add(new File([bytes], arguments[1], {type: "image/jpeg"}));
const target = document.getElementById("drop");
for (const kind of ["dragover", "drop"])
  target.dispatchEvent(new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true}));
"""


def count(page: webdriver.Chrome) -> int:
    """Return the number of boxes that the page says it shows."""
    return int(page.find_element(By.ID, "said").text.split()[0])


def look(page: webdriver.Chrome, address: str, picture: Path, screenshot: Path) -> None:
    """Use the page as a person does."""
    page.get(address)
    said = lambda _: page.find_element(By.ID, "said").text  # noqa: E731
    page.find_element(By.ID, "file").send_keys(str(picture.resolve()))
    WebDriverWait(page, 20).until(lambda p: "boxes" in said(p))
    usual = count(page)
    assert usual > 0, "no box was drawn"
    page.save_screenshot(str(screenshot))
    move = "const s = document.getElementById('conf'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))"
    page.execute_script(move, "0.05")
    assert count(page) > usual, "a lower confidence shows no more boxes"
    page.execute_script(move, "0.95")
    assert count(page) < usual, "a higher confidence shows no fewer boxes"
    with tempfile.NamedTemporaryFile(suffix=".jpg") as broken:
        broken.write(b"no picture")
        broken.flush()
        page.find_element(By.ID, "file").send_keys(broken.name)
        WebDriverWait(page, 20).until(lambda p: "not a readable image" in said(p))
    encoded = base64.b64encode(picture.read_bytes()).decode()
    page.execute_script(DROP, encoded, picture.name)
    WebDriverWait(page, 20).until(lambda p: "boxes" in said(p))
    page.execute_script(move, "0.25")
    assert count(page) > 0, "a dropped picture shows no box"
    page.get(f"{address}/docs")
    WebDriverWait(page, 20).until(lambda p: "POST /detect" in p.find_element(By.ID, "paths").text)
    bad = [
        entry
        for entry in page.get_log("browser")
        if "400" not in entry["message"] and "favicon" not in entry["message"]
    ]
    assert not bad, bad


def main() -> None:
    """Start the server, then the browser."""
    weights, picture, screenshot = sys.argv[1:]
    command = [sys.executable, str(ROOT / "tools" / "serve.py"), "--weights", weights, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = re.search(r"http://\S+", server.stdout.readline())
        assert address
        page = browser()
        try:
            look(page, address[0], Path(picture), Path(screenshot))
        finally:
            page.quit()
            server.terminate()
    print(f"the page does as it should; {screenshot}")


if __name__ == "__main__":
    main()
