"""A short run of the comparison with PyTorch; ``compare_torch.py`` does the long one."""

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

import compare_torch


@pytest.mark.parametrize("family", sorted(compare_torch.FAMILIES))
def test_agrees_with_torch(isa, family, problem_count):
    """Random problems agree in both dtypes, and float32 errs at most twice as much as PyTorch."""
    score = compare_torch.compare(family, problem_count(60), seed=1)
    assert score.ratio() <= 2, f"float32 error {score.ratio():.2f} times PyTorch's"
