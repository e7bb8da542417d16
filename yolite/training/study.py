"""The search for settings as an Optuna study: one SQLite file that several processes may work on.

Every draw comes from (seed, number of the trial), so processes that share a study never try the same twice. A process
that dies stops its heartbeat; its trial is then given up, and another one takes its place.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

from yolite.errors import UserError
from yolite.seeding import derived

WARMUP = 3
"""The first epoch at which a trial may be pruned."""

COMPARED = 5
"""Finished trials before it judges any."""

HEARTBEAT, GRACE = 10, 60
"""Seconds between signs of life of a trial, and without one before it is given up."""

ATTEMPTS = 5
"""Times to open a study that another process is just making."""

_TUNE = 7
"""This subject's place among the draws from one seed."""


class Surplus(Exception):
    """Another process has begun the last trial that was wanted."""


class Sampler(optuna.samplers.BaseSampler):
    """TPE, seeded anew for every trial; the first trial takes the settings as they are, to compare with.

    Args:
        seed: The run's.
        start: What the first trial takes.
    """

    def __init__(self, seed: int, start: Mapping[str, float]) -> None:
        self._seed, self._start, self._first = seed, start, False
        self._tpe = optuna.samplers.TPESampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Decide whether this is the first trial, and seed."""
        self._first = not any(t.number < trial.number and t.state != TrialState.FAIL for t in _trials(study))
        # constant_liar: trials that others are still busy with count as bad, so that they are not tried again
        self._tpe = optuna.samplers.TPESampler(seed=derived(self._seed, _TUNE, trial.number), constant_liar=True)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the settings that are drawn together."""
        return {} if self._first else self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw them."""
        return self._tpe.sample_relative(study, trial, search_space) if search_space else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one setting by itself."""
        if self._first:
            return self._start[param_name]
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Let TPE do its own part."""
        self._tpe.after_trial(study, trial, state, values)


def _trials(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False)


def open_study(path: Path, seed: int, start: Mapping[str, float]) -> optuna.Study:
    """Open the study in a SQLite file, or begin it.

    Args:
        path: The file.
        seed: Every draw comes from it.
        start: Settings of the first trial.

    Raises:
        UserError: the file is no study, or of another version of Optuna.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # the heartbeat and constant_liar are called experimental by some of the versions that have them
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    for left in reversed(range(ATTEMPTS)):
        try:
            return _open(path, Sampler(seed, start))
        except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
            # Processes that begin at once get into each other's way while the tables are made: then try again.
            if left and isinstance(error, (OperationalError, IntegrityError)):
                time.sleep(1)
                continue
            reason = " ".join(str(error).partition("[SQL")[0].split())[:120]
            raise UserError(f"{path} is no study that can be gone on with ({reason}): choose another --out") from None
    raise AssertionError("the last attempt returns or raises")


def _open(path: Path, sampler: Sampler) -> optuna.Study:
    """Open or create the study."""
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{path.resolve()}", engine_kwargs={"connect_args": {"timeout": 60}},
        heartbeat_interval=HEARTBEAT, grace_period=GRACE,
    )  # fmt: skip
    pruner = optuna.pruners.MedianPruner(n_startup_trials=COMPARED, n_warmup_steps=WARMUP)
    return optuna.create_study(
        storage=storage, study_name="yolite", direction="maximize", load_if_exists=True, pruner=pruner, sampler=sampler
    )


def count(study: optuna.Study, *states: TrialState, before: int | None = None) -> int:
    """Return the number of trials in these states, of those before number ``before``."""
    return sum(t.state in states and (before is None or t.number < before) for t in _trials(study))


def work(
    study: optuna.Study, objective: Callable[[optuna.Trial], float], wanted: int, wait: Callable[[int], None]
) -> None:
    """Run trials until ``wanted`` are done, over all processes that work on the study.

    Args:
        study: From `open_study`.
        objective: Trains a trial and returns its AP.
        wanted: Trials in all; one that was pruned counts, one that was interrupted does not.
        wait: Called, with their number, while nothing is left but trials of other processes.
    """
    done, busy = (TrialState.COMPLETE, TrialState.PRUNED), TrialState.RUNNING

    def one(trial: optuna.Trial) -> float:
        # Several processes may have seen the last place free: the lower number has it.
        if count(study, *done, busy, before=trial.number) >= wanted:
            raise Surplus
        return objective(trial)

    while (finished := count(study, *done)) < wanted:
        if finished + count(study, busy) < wanted:
            study.optimize(one, n_trials=1, catch=(Surplus,))
        else:
            wait(count(study, busy))
            time.sleep(1)
            optuna.storages.fail_stale_trials(study)
