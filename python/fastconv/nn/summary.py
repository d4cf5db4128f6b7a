"""A table of a network's layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._trace import observe
from .module import Module
from .receptive_field import Field

__all__ = ["Row", "Summary", "summarize"]


class Row(NamedTuple):
    """One layer of a summary."""

    name: str
    """Dotted name, as in ``state_dict``."""
    layer: str
    """Class of the layer."""
    output_shape: tuple[int, ...]
    """Shape of its output, batch axis included."""
    parameters: int
    """Number of trained values."""
    multiply_adds: int
    """Multiply-adds of one forward of the whole batch: those of weights; norms, pools and activations count 0."""
    receptive_field: tuple[int, ...] | None
    """Input positions that one output sees, by spatial axis; ``None`` where it is everything or unknown. The statistics
    that a norm takes of its input do not count."""


@dataclass(frozen=True)
class Summary:
    """The rows of a network's table and their totals. ``str`` of it, or its display at a prompt, is the table."""

    rows: tuple[Row, ...]
    parameters: int
    """Trained values of the network (a shared one counted once)."""
    multiply_adds: int
    """Multiply-adds of the network."""
    receptive_field: Field | None = field(repr=False)
    """What one of its outputs sees; ``None`` if that is unknown."""
    _fields: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        header = ("Layer", "Output shape", "Parameters", "Multiply-adds", "Receptive field")
        cells = [
            (
                f"{row.name}  {row.layer}" if row.name else row.layer,
                str(row.output_shape),
                f"{row.parameters:,}",
                f"{row.multiply_adds:,}",
                seen,
            )
            for row, seen in zip(self.rows, self._fields, strict=True)
        ]
        total = ("Total", "", f"{self.parameters:,}", f"{self.multiply_adds:,}", "")
        # The names share a column of their own width, so that the classes line up.
        width = max((len(row.name) for row in self.rows), default=0)
        cells = [
            (f"{row.name:<{width}}  {row.layer}" if width else row.layer, *cell[1:])
            for row, cell in zip(self.rows, cells, strict=True)
        ]
        widths = [max(len(line[i]) for line in [header, *cells, total]) for i in range(len(header))]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

        def line(parts: tuple[str, ...]) -> str:
            left = "  ".join(part.ljust(size) for part, size in zip(parts[:2], widths[:2], strict=True))
            right = "  ".join(part.rjust(size) for part, size in zip(parts[2:], widths[2:], strict=True))
            return f"{left}  {right}".rstrip()

        return "\n".join([line(header), rule, *(line(cell) for cell in cells), rule, line(total)])

    __repr__ = __str__


@dataclass
class _Recorder:
    """Follows one forward: shapes of every layer, and the receptive field of every array that a layer made."""

    names: dict[int, str]
    fields: dict[int, Field | None]
    rows: list[tuple[Row, str]] = field(default_factory=list)
    _kept: list[Any] = field(default_factory=list)
    _children: list[list[Field | None]] = field(default_factory=list)

    def enter(self, module: Module, x: NDArray[Any]) -> None:
        self._children.append([])

    def leave(self, module: Module, x: NDArray[Any], y: NDArray[Any]) -> None:
        inner = self._children.pop()
        is_layer = next(module.children(), None) is None
        before = self.fields.get(id(x))
        if is_layer:
            after = before.through(module.geometry()) if before is not None else None
        elif id(y) in self.fields:
            after = self.fields[id(y)]
        else:
            after = _union([before, *inner])
        # Arrays are known by identity, so they must outlive the trace.
        self._kept += [x, y]
        self.fields[id(y)] = after
        if self._children:
            self._children[-1].append(after)
        if is_layer:
            self.rows.append((self._row(module, x, y, after), "-" if after is None else str(after)))

    def _row(self, module: Module, x: NDArray[Any], y: NDArray[Any], seen: Field | None) -> Row:
        return Row(
            self.names.get(id(module), ""),
            type(module).__name__,
            y.shape,
            sum(parameter.size for parameter in module.parameters()),
            module.multiply_adds(x.shape, y.shape),
            None if seen is None or seen.whole else seen.positions,
        )


def _union(fields: list[Field | None]) -> Field | None:
    """Return the largest of the fields, ``None`` if one is unknown."""
    result = fields[0]
    for other in fields[1:]:
        if result is None or other is None:
            return None
        result = result.union(other)
    return result


def _dtype(module: Module) -> np.dtype[Any]:
    """Return the dtype of a module's numbers, float32 if it has none."""
    held = [*(parameter.data for parameter in module.parameters()), *(buffer for _, buffer in module.named_buffers())]
    return next((array.dtype for array in held if array.dtype.kind not in "iub"), np.dtype(np.float32))


def summarize(module: Module, input_shape: Sequence[int]) -> Summary:
    """Describe every layer of ``module`` for an input of ``input_shape``; see `Module.summary`.

    One forward of a single sample of zeros is run, in evaluation mode, and the module left as it was. A container's
    own arithmetic (the sum of a residual block) is seen through; what a user's module does with arrays between its
    layers is taken to keep the receptive field.
    """
    shape = tuple(int(size) for size in input_shape)
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"input_shape: expected (N, ...) with positive sizes, got {input_shape!r}")
    parameters = list(module.parameters())
    x = np.zeros((1, *shape[1:]), _dtype(module))
    recorder = _Recorder(
        {id(each): name for name, each in module.named_modules()}, {id(x): Field.of_input(max(len(shape) - 2, 0))}
    )
    with module.evaluating(), observe(recorder):
        y = module(x)
    rows = tuple(
        row._replace(output_shape=(shape[0], *row.output_shape[1:]), multiply_adds=row.multiply_adds * shape[0])
        for row, _ in recorder.rows
    )
    return Summary(
        rows,
        sum(parameter.size for parameter in parameters),
        sum(row.multiply_adds for row in rows),
        recorder.fields.get(id(y)),
        tuple(seen for _, seen in recorder.rows),
    )
