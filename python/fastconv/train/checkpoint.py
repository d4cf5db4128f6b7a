"""All of a training that has to be kept to go on as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._files import read_npz, write_npz, write_whole
from ..nn.module import Module
from ..optim.optimizer import Optimizer
from ..optim.schedule import LRScheduler

__all__ = ["read", "write"]

Arrays = dict[str, NDArray[Any]]


def write(
    path: Path,
    model: Module,
    optimizer: Optimizer,
    schedule: LRScheduler | None,
    progress: dict[str, Any],
) -> None:
    """Write a training's state to a file, which appears whole or not at all.

    Parameters
    ----------
    path : Path
        A ``.npz`` file. Arrays are stored under their names with ``model/`` or ``optimizer/`` before them, all else as
        JSON in an array of bytes, ``state``.
    model, optimizer, schedule
        What is trained, and how.
    progress : dict
        Plain numbers, texts and lists: where the training is.
    """
    arrays: Arrays = {f"model/{name}": array for name, array in model.state_dict().items()}
    saved = optimizer.state_dict()
    counts: dict[str, dict[str, Any]] = {}
    for i, kept in saved["state"].items():
        counts[str(i)] = {name: value for name, value in kept.items() if not isinstance(value, np.ndarray)}
        arrays |= {f"optimizer/{i}/{name}": value for name, value in kept.items() if isinstance(value, np.ndarray)}
    state = {
        "progress": progress,
        "optimizer": {"counts": counts, "groups": saved["param_groups"], "initial_lr": optimizer.initial_lr},
        "schedule": None if schedule is None else schedule.state_dict(),
        "generators": {name: _plain(rng.bit_generator.state) for name, rng in _generators(model)},
    }
    arrays["state"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    write_whole(path, lambda file: write_npz(file, arrays), path.with_name(f".{path.name}.tmp"))


def read(
    path: Path, model: Module, optimizer: Optimizer, schedule: LRScheduler | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """Put model, optimizer, schedule and the layers' generators in the state of a file, and return the progress.

    Parameters
    ----------
    path : Path
        A file that `write` wrote.
    model, optimizer, schedule
        Made as those that were saved.
    settings : dict
        What ``progress["settings"]`` must be.

    Raises
    ------
    ValueError
        If the file is damaged or belongs to another training. Nothing has been changed then but, where model and
        optimizer do not belong together, the model.
    """
    arrays = read_npz(path)
    try:
        state = json.loads(arrays.pop("state").tobytes())
        before = state["progress"]["settings"]
    except (KeyError, ValueError) as error:
        raise ValueError(f"run: {str(path)!r} is not the state of a training: {error!r}") from None
    changed = [name for name in settings if settings[name] != before.get(name)]
    if changed:
        differences = ", ".join(f"{name}={before.get(name)!r} (now {settings[name]!r})" for name in changed)
        raise ValueError(f"run: the training in {str(path.parent)!r} was begun with {differences}")
    kept: dict[int, dict[str, Any]] = {int(i): dict(count) for i, count in state["optimizer"]["counts"].items()}
    for name in [name for name in arrays if name.startswith("optimizer/")]:
        _, i, buffer = name.split("/", 2)
        kept[int(i)][buffer] = arrays.pop(name)
    model.load_state_dict({name.removeprefix("model/"): array for name, array in arrays.items()})
    optimizer.load_state_dict({"state": kept, "param_groups": state["optimizer"]["groups"]})
    optimizer.initial_lr = state["optimizer"]["initial_lr"]
    if schedule is not None:
        schedule.load_state_dict(state["schedule"])
    for name, rng in _generators(model):
        rng.bit_generator.state = state["generators"][name]
    progress: dict[str, Any] = state["progress"]
    return progress


def _generators(model: Module) -> Iterator[tuple[str, np.random.Generator]]:
    """Iterate over the generators that layers draw from, with their dotted names."""
    for prefix, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, np.random.Generator):
                yield f"{prefix}.{name}", value


def _plain(value: Any) -> Any:
    """Return a generator's state with lists for arrays, which setting it takes as well."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
