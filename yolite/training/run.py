"""The run folder: config.yaml, data.json, metrics.jsonl, last.ckpt, best.ckpt, results.json, report.html, log.txt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from yolite.checkpoint import save_checkpoint
from yolite.errors import UserError
from yolite.files import write_atomically, write_json, write_json_lines

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run, and how each file is written."""

    path: Path

    def refuse_if_taken(self) -> None:
        """Raise UserError if the folder holds a run already."""
        if self.last.exists() or self.best.exists() or self.metrics.exists():
            raise UserError(
                f"--out {self.path} already holds a run: choose another folder, or go on with --resume {self.path}"
            )

    def create(self) -> None:
        """Make the folder.

        Raises:
            UserError: it holds a run already, or cannot be made.
        """
        self.refuse_if_taken()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {self.path} cannot be made ({error.strerror}): choose another folder") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other programs out of the folder meanwhile; the end of a killed one opens it too.

        Raises:
            UserError: another program is training in it.
        """
        if fcntl is None:  # no such locks on this system
            yield
            return
        with (self.path / "lock").open("wb") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process alone, not of its loader processes
            except OSError:
                raise UserError(
                    f"{self.path}: another program is training in this folder: wait for it or stop it"
                ) from None
            yield

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint of the best validation AP."""
        return self.path / "best.ckpt"

    @property
    def gradients(self) -> Path:
        """Statistics of weights and gradients by layer, if asked for."""
        return self.path / "gradients.jsonl"

    @property
    def data(self) -> Path:
        """A hash of each image's labels, to tell what has changed when a run is resumed."""
        return self.path / "data.json"

    @property
    def results(self) -> Path:
        """The final evaluation of best.ckpt."""
        return self.path / "results.json"

    @property
    def worst(self) -> Path:
        """The validation pictures with something missed or wrong, the worst first (COCO json)."""
        return self.path / "worst.json"

    @property
    def detections(self) -> Path:
        """The validation detections of best.ckpt (COCO results file)."""
        return self.path / "detections.json"

    @property
    def report(self) -> Path:
        """Everything about the run on one page."""
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        """What was printed."""
        return self.path / "log.txt"

    def write_config(self, plain: dict[str, Any]) -> None:
        """Write config.yaml."""
        text = yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=110)
        write_atomically(self.config, lambda file: file.write(text.encode()))

    def write_data(self, hashes: dict[str, dict[str, str]]) -> None:
        """Write data.json."""
        write_json(self.data, hashes)

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl anew from the whole history, so that a resume leaves no line twice."""
        write_json_lines(self.metrics, history)

    def write_results(self, plain: dict[str, Any]) -> None:
        """Write results.json."""
        write_json(self.results, plain)

    def save(self, content: dict[str, Any], best: bool) -> None:
        """Write last.ckpt, and best.ckpt too if this is the best state so far."""
        if best:
            save_checkpoint(self.best, content)
        save_checkpoint(self.last, content)
