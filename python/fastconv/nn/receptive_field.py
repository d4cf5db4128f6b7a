"""How much of the input one output sees."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

__all__ = ["Field", "Geometry"]


class Geometry(NamedTuple):
    """How a layer slides over its input, a number per spatial axis (a fraction where it resizes by one)."""

    kernel: tuple[int | Fraction, ...]
    stride: tuple[int | Fraction, ...]
    dilation: tuple[int, ...]
    transposed: bool = False
    whole: bool = False

    @classmethod
    def everything(cls) -> Geometry:
        """Return the geometry of a layer whose outputs see the whole input."""
        return cls((), (), (), whole=True)


class Field(NamedTuple):
    """Receptive field of a position, in input positions.

    ``size`` is its extent along each spatial axis, ``jump`` the distance between the fields of neighbouring outputs;
    ``whole`` says that the position sees everything.
    """

    size: tuple[Fraction, ...]
    jump: tuple[Fraction, ...]
    whole: bool = False

    @classmethod
    def of_input(cls, n: int) -> Field:
        """Return the field of the network's own input: one position."""
        return cls((Fraction(1),) * n, (Fraction(1),) * n)

    def through(self, geometry: Geometry | None) -> Field:
        """Return the field after a layer.

        A kernel of k taps at dilation d widens it by (k-1)*d jumps and a stride multiplies the jump (Dumoulin and
        Visin, 2016). A transposed convolution divides the jump by its stride and then widens by the new, finer jumps,
        rounded down to whole input positions.
        """
        if self.whole or geometry is None:
            return self
        if geometry.whole:
            return Field((), (), whole=True)
        size: list[Fraction] = []
        jump: list[Fraction] = []
        for extent, step, k, s, d in zip(
            self.size, self.jump, geometry.kernel, geometry.stride, geometry.dilation, strict=True
        ):
            if geometry.transposed:
                size.append(extent + ((k - 1) * d // s) * step)
                jump.append(step / s)
            else:
                size.append(extent + (k - 1) * d * step)
                jump.append(step * s)
        return Field(tuple(size), tuple(jump))

    def union(self, other: Field) -> Field:
        """Return the larger field along each axis, for branches that meet."""
        if self.whole or other.whole:
            return Field((), (), whole=True)
        return Field(
            tuple(max(a, b) for a, b in zip(self.size, other.size, strict=True)),
            tuple(max(a, b) for a, b in zip(self.jump, other.jump, strict=True)),
        )

    @property
    def positions(self) -> tuple[int, ...]:
        """Whole input positions along each axis."""
        return tuple(-(-size.numerator // size.denominator) for size in self.size)

    def __str__(self) -> str:
        return "all" if self.whole else " x ".join(map(str, self.positions))
