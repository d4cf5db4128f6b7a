"""A short run of the fuzzer, and the problem lines it shares with the benchmarks."""

import pathlib
import re

import fuzz
import numpy as np
import problems
import pytest
from fastconv._cli.problem import OPS, parse_problem, parse_problems

SHAPES = pathlib.Path(__file__).resolve().parent.parent / "bench" / "shapes"


@pytest.mark.parametrize("seed", range(4))
def test_random_calls(seed, problem_count):
    """Random calls of every op give arrays or are refused."""
    with np.errstate(all="ignore"), fuzz.limited_memory(16):
        solved, refused = fuzz.fuzz(max(problem_count(400), 100), seed)
    assert solved
    assert refused


def test_problem_lines():
    """Every random problem survives being written and read."""
    source = problems.Seeded(0)
    for _ in range(300):
        for op in OPS:
            problem = fuzz.random_problem(source, op)
            assert parse_problem(str(problem)) == problem


@pytest.mark.parametrize("path", sorted(SHAPES.glob("*.txt")), ids=lambda path: path.stem)
def test_shape_files(path):
    """Every line of the shape files is a possible problem with a name of its own."""
    read = parse_problems(path.read_text())
    assert read
    assert len({problem.name for problem in read}) == len(read)
    assert all(problems.usable(problem) for problem in read if problem.windowed)


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("n=1 c=1", "name"),
        ("a: n=1", "c="),
        ("a: op=conf n=1 c=1", "conf"),
        ("a: n=1 c=1 k=1 in=4x4 kernel=3x3x3", "kernel=3x3x3"),
        ("a: n=1 c=1 k=1 in=4 kernel=x", "kernel=x"),
        ("a: n=1 c=1 color=red", "color=red"),
        ("a: n=1 n=2 c=1", "n=2"),
        ("a: op=max_pool n=1 c=1 kernel=2", "in="),
    ],
)
def test_wrong_problem_lines(line, fragment):
    """A wrong line is refused with what is wrong in it."""
    with pytest.raises(ValueError, match=re.escape(fragment)):
        parse_problem(line)
