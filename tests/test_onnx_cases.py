"""ONNX's own node cases of the ops that both have."""

from __future__ import annotations

import numpy as np
import onnx_cases
import pytest
import tolerance

REFUSED = {"test_maxpool_2d_uint8": "integers are refused with the advice to cast"}
"""Cases that we refuse on purpose, and why."""

ROUNDED = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 1e-4}
"""Cases whose outputs are written down with a few decimals, and how far that is from the value."""


@pytest.mark.parametrize("operator", onnx_cases.ADAPTERS)
def test_node(operator):
    """Every output of every case of the operator."""
    cases = onnx_cases.cases()[operator]
    assert cases
    for case in cases:
        assert case.data_sets
        for inputs, expected in case.data_sets:
            if case.name in REFUSED:
                with pytest.raises(TypeError, match="cast it with"):
                    onnx_cases.solve(case, inputs, expected)
                continue
            outputs = onnx_cases.solve(case, inputs, expected)
            assert len(outputs) >= len(expected)
            for i, (output, wanted) in enumerate(zip(outputs, expected, strict=False)):
                check(output, np.asarray(wanted), inputs, f"{case.name}: output {i}", ROUNDED.get(case.name, 0.0))


def check(output, wanted, inputs, what, rounding):
    """The output is the case's, which was itself rounded: both may err by the sums of so many terms."""
    assert output.dtype == wanted.dtype, what
    assert output.shape == wanted.shape, what
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(output, wanted, err_msg=what)
        return
    terms = max(np.size(array) for array in (*inputs, wanted))
    magnitude = np.abs(wanted).max(initial=1.0)
    bound = 2 * tolerance.sum_bound(wanted.dtype, terms, magnitude) + rounding
    tolerance.assert_close(output, wanted, bound, what)
