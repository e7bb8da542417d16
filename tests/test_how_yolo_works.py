"""What docs/how-yolo-works.md shows is run: Python blocks as they are, commands up to the training."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.test_explain import loud, saved
from yolite.commands.train import configure
from yolite.config import to_plain
from yolite.errors import UserError
from yolite.settings import load_config

DOCS = Path(__file__).parent.parent / "docs"
PAGE, OTHER = DOCS / "how-yolo-works.md", DOCS / "how-yolo-works.zh.md"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)


def test_the_python_code_runs() -> None:
    """From top to bottom in one namespace; every block with an assert says something that can be wrong."""
    code = blocks(PAGE, "python")
    assert len(code) >= 12
    known: dict[str, Any] = {}
    for block in code:
        assert "assert " in block
        line = PAGE.read_text(encoding="utf-8").split(block)[0].count("\n")
        exec(compile("\n" * line + block, str(PAGE), "exec"), known)


COMMANDS = [shlex.split(line, comments=True)[1:] for block in blocks(PAGE, "sh") for line in block.splitlines()]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_commands_are_understood(
    words: list[str], cli: Callable[..., tuple[int, str, str]], shapes: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """All but the work itself: options, settings, data and weights are read and go together."""
    weights = saved(tmp_path / "best.ckpt", loud("yolite-n"), to_plain(load_config("yolite-n", options={"imgsz": 64})))
    stand_ins = {
        "my_data": str(shapes),
        "runs/mine": str(weights),
        "photo.jpg": str(shapes.parent / "images/val/s016.png"),
    }
    words = [stand_ins.get(word, word) for word in words]
    begun = []
    monkeypatch.setattr("yolite.commands.train.start", lambda config, *rest, **more: begun.append(config))
    monkeypatch.chdir(tmp_path)
    status, _, err = cli(*words)
    assert status == 0, err
    assert words[0] == "explain" or len(begun) == 1
    for config in begun:  # what was typed is what would be trained with
        for key, value in (word.split("=") for word in words if re.fullmatch(r"[a-z_.]+=.*", word)):
            found: Any = config
            for part in key.split("."):
                found = getattr(found, part)
            assert str(found) == value


def test_anchors_a_level_that_would_change_nothing(tmp_path: Path) -> None:
    """Without --model the anchors of the weights are given: another number a level is refused, not passed over."""
    given = "model.code.anchors=" + str([[[8.0, 8.0]] * 3] * 3)
    stored = to_plain(load_config("yolite-n", options={"imgsz": 64}, words=[given]))
    weights = str(saved(tmp_path / "best.ckpt", loud("yolite-n"), stored))
    with pytest.raises(UserError, match="anchors_per_level=2 has no effect: the anchors are given, 3 a level"):
        configure(None, None, {"weights": weights}, ["model.code.anchors_per_level=2"])
    for words in (["model.code.anchors_per_level=3"], ["model.code.anchors_per_level=2", "model.code.anchors=auto"]):
        configure(None, None, {"weights": weights}, words)


def test_the_pictures_are_there_and_small() -> None:
    pages = [page for page in DOCS.glob("*.md") if page != OTHER]
    shown = {page: re.findall(r"!\[[^\]]+\]\((pictures/[^)]+)\)", page.read_text(encoding="utf-8")) for page in pages}
    files = sorted(f"pictures/{path.name}" for path in (DOCS / "pictures").iterdir())
    assert sorted(name for names in shown.values() for name in names) == files
    assert 0 < len(shown[PAGE]) <= 12
    assert all((DOCS / file).stat().st_size < 60_000 for file in files)


def test_the_translation_shows_the_same() -> None:
    """Code, commands, formulas, pictures and tables of numbers are those of the English page, in its order."""
    pages = [page.read_text(encoding="utf-8") for page in (PAGE, OTHER)]
    for part in (r"^```.*?^```$", r"\((pictures/[^)]+)\)", r"^\|[^|\n]*\|((?: [\d./]+ \|)+)$"):
        english, chinese = (re.findall(part, page, re.S | re.M) for page in pages)
        assert english == chinese
        assert english
    assert [page.count("\n## ") for page in pages] == [14, 14]
