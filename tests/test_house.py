"""The house keeps its own rules: import arrows, style, types, versions."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "yolite"

# Lower numbers stand below: a module imports only from lower ranks (or its own package, where a package has one rank).
RANK = {
    "errors": 0, "seeding": 0, "boxes": 0, "structures": 1, "paths": 1, "geometry": 2, "anchors": 2, "nms": 2,
    "codec": 3, "training.assign": 4, "training.parts": 4, "training.loss": 5,
}  # fmt: skip


def imports_of(path: Path) -> set[str]:
    """Every yolite module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{a.name}" for a in node.names}
    modules = {str(p.relative_to(PACKAGE).with_suffix("")).replace("/", ".") for p in PACKAGE.rglob("*.py")}
    return {m.removeprefix("yolite.") for m in found if m.startswith("yolite.")} & modules


def module(path: Path) -> str:
    return str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".")


FILES = {module(p): imports_of(p) for p in PACKAGE.rglob("*.py")}


def test_the_arithmetic_imports_downwards() -> None:
    for name, rank in RANK.items():
        for other in FILES[name]:
            assert other in RANK, f"{name} imports {other}"
            assert RANK[other] < rank, f"{name} imports {other}"


def test_models_know_nothing_of_data_loss_or_config() -> None:
    for name in FILES:
        if name.startswith("models."):
            for other in FILES[name]:
                assert other == "structures" or other.startswith("models."), f"{name} imports {other}"


def test_darknet_knows_networks_and_files_alone() -> None:
    for name in FILES:
        if name.startswith("darknet."):
            for other in FILES[name]:
                assert other.startswith(("darknet.", "models.")) or other in ("errors", "files", "structures"), (
                    f"{name} imports {other}"
                )


def test_data_and_evaluation_do_not_know_each_other_or_models() -> None:
    for name in FILES:
        for package, strangers in (("data.", ("evaluation", "models", "training")),
                                   ("evaluation.", ("data", "models", "training"))):  # fmt: skip
            if name.startswith(package):
                for other in FILES[name]:
                    assert not other.startswith(strangers), f"{name} imports {other}"


def test_config_is_seen_by_those_who_build() -> None:
    allowed = {
        "build",
        "reading",
        "training.trainer",
        "training.prepare",
        "training.decide",
        "training.resume",
        "predictor",
        "settings",
        "cli",
    }
    for name, others in FILES.items():
        if others & {"config", "settings"}:
            assert name in allowed or name.startswith("commands."), f"{name} imports config or settings"


def test_nobody_imports_tools_or_commands_from_below() -> None:
    for name, others in FILES.items():
        if not name.startswith(("commands", "cli")):
            assert not any(o.startswith("commands") for o in others), name
    assert not any("tools" in p.read_text() and "import tools" in p.read_text() for p in PACKAGE.rglob("*.py"))


def test_albumentations_is_imported_in_one_place() -> None:
    users = [p.name for p in PACKAGE.rglob("*.py") if "import albumentations" in p.read_text()]
    assert users == ["transforms.py"]


def test_no_eval_exec_or_pickle() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
                source = ast.unparse(node)
                assert "torch.load" not in source or "weights_only=True" in source, path


def test_both_opencv_wheels_are_of_one_version() -> None:
    versions = {importlib.metadata.version(n) for n in ("opencv-python", "opencv-python-headless")}
    assert len(versions) == 1, f"two OpenCV wheels write one folder: {versions}"


def test_importing_yolite_is_light_and_quiet() -> None:
    code = "import sys, yolite; assert not {'torch', 'cv2', 'albumentations'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_detection_starts_without_the_compiler_of_torch() -> None:
    """torchvision's package imports it, which takes longer than everything else that detection imports but torch."""
    code = "import sys, yolite.commands.detect; print({'torchvision', 'torch._dynamo'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_table_of_settings_is_that_of_the_code() -> None:
    from docs.settings import text

    assert (ROOT / "docs" / "settings.md").read_text() == text(), "run: python docs/settings.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join
)
def test_style_and_types(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
