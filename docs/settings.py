"""Write docs/settings.md, the table of all settings, from the code: `python docs/settings.py`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from yolite.config import Config

HEAD = """# Settings

Every setting, its default and what it means; made from `yolite/config.py` by `python docs/settings.py`. Each can be
given as a word (`yolite train train.lr=0.01`), in a file (`--config my.yaml`), and some as options (`--epochs 50`). The
later wins: these defaults, the model's file in `configs/`, `--config`, options, words. What is `auto` is decided once
when a run starts, said, and stored in the run.
"""


def rows(section: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the table rows of a section and the sections inside it."""
    out = []
    for name, info in section.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            title = (kind.__doc__ or "").split(";")[0].strip().rstrip(".")
            out += ["", f"## {prefix}{name}: {title[0].lower()}{title[1:]}", "", "| setting | default | meaning |",
                    "|---|---|---|", *rows(kind, f"{prefix}{name}.")]  # fmt: skip
        else:
            default = info.get_default(call_default_factory=True)
            shown = ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
            out.append(f"| `{prefix}{name}` | {shown if shown not in ('', '[]', '{}', 'None') else '-'} "
                       f"| {(info.description or '').replace('|', '/')} |")  # fmt: skip
    return out


def text() -> str:
    """Return the whole file."""
    top = ["", "## the run", "", "| setting | default | meaning |", "|---|---|---|"]
    return HEAD + "\n".join([*top, *rows(Config)]) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "settings.md").write_text(text(), encoding="utf-8")
