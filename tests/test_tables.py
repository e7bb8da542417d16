"""The tables of the docs are those that the benchmarks print of their finished rows."""

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
PAGES = "\n".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))


@pytest.mark.parametrize("name", ["train_vs_peer", "few_pictures", "finetune", "recipe", "speed_accuracy", "loader",
                                  "choices", "darknet_parity"])  # fmt: skip
def test_a_table_is_what_its_script_prints(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    script = importlib.import_module(name)
    script.show(json.loads((BENCHMARKS / "results" / f"{name}.json").read_text()))
    lines = [line for line in capsys.readouterr().out.splitlines() if re.match(r"\| *\w", line)]
    assert len(lines) > 1
    assert not [line for line in lines if line not in PAGES]


def test_the_readme_has_the_figures_of_the_rows() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    rows = {row["job"]: row for row in json.loads((BENCHMARKS / "results" / "train.json").read_text())}
    digits = rows["digits"]
    first = (
        f"{digits['seconds']:.0f} s after the install, **AP@[.5:.95] {digits['AP']:.3f}** (AP50 {digits['AP50']:.3f})"
    )
    assert first in readme
    table = re.findall(r"^\| (bccd|cards|digits) \| ([\w-]+) \| (\d+) \| [\d. ]+ \| ([\d.]+) \|(?:[^|]*\|){3} (\d+) \|",
                       PAGES, re.M)  # fmt: skip
    told = {(data, model, epochs): (ap, seconds) for data, model, epochs, ap, seconds in table}
    for data, epochs in (("bccd", "50"), ("cards", "50")):
        for model in ("yolite-n", "yolov8n"):
            ap, seconds = told[data, model, epochs]
            assert re.search(rf"AP {ap}\b.*?\b{seconds} s|{model}[^;.]*{ap} in {seconds} s", readme), (data, model)
