"""Packages that only some parts need."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["MissingExtraError", "require"]


class MissingExtraError(ImportError):
    """A package of an optional extra is not installed; the message says what to type."""


def require(module: str, *, purpose: str, extra: str = "demo", package: str | None = None) -> Any:
    """Import a module of an optional extra.

    Parameters
    ----------
    module : str
        What to import.
    purpose : str
        What it is needed for, as the subject of a sentence.
    extra : str
        The extra of fastconv that has it.
    package : str, optional
        Name under which it is installed, where that is not the module's.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != top:
            raise  # installed, but a package of its own is missing: that name is the useful one
        raise MissingExtraError(
            f"{purpose} needs the package {package or top!r}, which is not installed: pip install 'fastconv[{extra}]'"
        ) from None
