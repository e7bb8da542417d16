"""Export one checkpoint in every format, prove each, measure every backend, and write the tables of docs/deploy.md.

    python tools/train.py --data ../shared/data/bccd data.train=trainval data.val=test --epochs 50 --out runs/bccd
    python benchmarks/export.py --weights runs/bccd

A finished row lies in benchmarks/results/export.json and is not made again (delete it there to repeat it).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rows import ROOT, machine

RESULTS = ROOT / "benchmarks" / "results" / "export.json"
DOCUMENT = ROOT / "docs" / "deploy.md"
JOBS = {
    "onnx": "--format onnx",
    "onnx, NMS in the graph": "--format onnx --nms",
    "onnx INT8": "--format onnx --int8",
    "openvino": "--format openvino",
    "openvino, NMS in the graph": "--format openvino --nms",
    "openvino INT8": "--format openvino --int8",
    "torchexport": "--format torchexport",
}
SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "torchexport": ".pt2"}


def tool(verb: str, *words: str) -> int:
    """Run one of yolite's commands as a program of its own; return its exit status."""
    return subprocess.run([sys.executable, str(ROOT / "tools" / f"{verb}.py"), *words], check=False).returncode


def export(weights: str, words: str, out: Path) -> dict[str, Any]:
    """Export and prove; return the row."""
    start = time.perf_counter()
    status = tool("export", "--weights", weights, *words.split(), "--out", str(out), "--json", str(out) + ".json")
    seconds = time.perf_counter() - start
    report = json.loads(Path(str(out) + ".json").read_text())
    size = sum(p.stat().st_size for p in {out, out.with_suffix(".bin") if out.suffix == ".xml" else out})
    return {"command": f"yolite export {words}", "status": status, "seconds": round(seconds, 1), "mib": size / 2**20,
            "rows": report["rows"]}  # fmt: skip


def bench(file: Path | str) -> list[dict[str, Any]]:
    """Measure the backends of a checkpoint, or the one of an exported file."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        if tool("bench", "--weights", str(file), "--json", str(out)):
            raise SystemExit(f"bench failed on {file}")
        made: list[dict[str, Any]] = json.loads(out.read_text())["backends"]
        return made


def parity_table(rows: dict[str, Any]) -> str:
    """Return the table of the parity reports."""
    lines = ["| file | MiB | raw maps | boxes after NMS, px | without a partner | AP before → after | FLOPs in INT8 |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, row in rows.items():
        found = {r["name"]: r for r in row["rows"]}
        share = found.get("FLOPs not in INT8")
        cells = [
            name, f"{row['mib']:.1f}", f"{found['raw maps, all pictures']['measured']:.1g}",
            f"{found['boxes after NMS, px']['measured']:.1g}",
            f"{found['boxes after NMS without a partner']['measured']:.1%}",
            found["AP, difference"]["note"].replace("->", "→"), f"{1 - share['measured']:.1%}" if share else "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def bench_table(rows: list[dict[str, Any]]) -> str:
    """Return the table of the backends."""
    lines = ["| backend | p50 ms | p95 ms | images/s | forward p50 ms | peak MiB | decode / preprocess / forward / "
             "postprocess |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        share = " / ".join(f"{row['share'][step]:.0%}" for step in ("decode", "preprocess", "forward", "postprocess"))
        cells = [row["backend"], f"{row['p50_ms']:.1f}", f"{row['p95_ms']:.1f}", f"{row['images_per_second']:.0f}",
                 f"{row['forward_p50_ms']:.1f}", f"{row['peak_mib']:.0f}", share]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def fill(text: str, name: str, table: str) -> str:
    """Replace what stands between a pair of markers."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{table}\n{m[2]}", text, flags=re.DOTALL)


def main() -> None:
    """Make what is missing, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="runs/bccd", help="checkpoint or run folder")
    parser.add_argument("--files", type=Path, default=ROOT / "runs" / "export", help="where the exported files go")
    parser.add_argument("--only", choices=["parity", "bench", "tables"], help="one part (bench wants an idle machine)")
    given = parser.parse_args()
    done: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"parity": {}, "bench": {}}
    given.files.mkdir(parents=True, exist_ok=True)

    def keep() -> None:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps({**done, "machine": machine()}, indent=2) + "\n")

    outs = {name: given.files / (re.sub(r"[^a-z0-9]+", "-", name.lower()) + SUFFIX[words.split()[1]])
            for name, words in JOBS.items()}  # fmt: skip
    for name in JOBS if given.only in (None, "parity") else ():
        if name not in done["parity"]:
            done["parity"][name] = export(given.weights, JOBS[name], outs[name])
            keep()
    measured = {"checkpoint": Path(given.weights), **{name: outs[name] for name in JOBS if "INT8" in name}}
    for name, file in measured.items() if given.only in (None, "bench") else ():
        if name not in done["bench"]:
            done["bench"][name] = bench(file)
            keep()
    text = fill(DOCUMENT.read_text(), "parity", parity_table(done["parity"]))
    DOCUMENT.write_text(fill(text, "bench", bench_table([row for rows in done["bench"].values() for row in rows])))
    if failed := [name for name, row in done["parity"].items() if row["status"]]:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
