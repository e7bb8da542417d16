"""What the wheel holds, and that it works away from the repository."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_wheel_carries_configs_and_data_and_trains_elsewhere(tmp_path: Path) -> None:
    """The built wheel, unpacked elsewhere, finds its models and puts generated data into the user's cache."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {"yolite/_shipped/configs/yolite-n.yaml", "yolite/report/templates/page.html"} <= set(names)
    shipped = {f"yolite/_shipped/data/{p.name}" for p in (ROOT / "data").glob("*.yaml")}
    assert {n for n in names if n.startswith("yolite/_shipped/data/")} == shipped
    assert not [n for n in names if "generated" in n or n.startswith("tests")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "yolite", "train", "--epochs", "1", "--imgsz", "64", "model.width=0.5",
               "--overfit", "8", "--batch", "8", "--out", "run"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "cache" / "yolite").is_dir()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["images"] == 8
