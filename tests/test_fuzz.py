"""A short run of the fuzzer, and the problem lines it shares with the benchmarks."""

import collections
import contextlib
import pathlib
import re

import fuzz
import fuzz_signatures
import numpy as np
import problems
import pytest
from fastconv._cli.problem import OPS, parse_problem, parse_problems

SHAPES = pathlib.Path(__file__).resolve().parent.parent / "bench" / "shapes"


@pytest.mark.parametrize("seed", range(4))
def test_random_calls(seed, problem_count):
    """Random calls of every op give arrays or are refused."""
    with np.errstate(all="ignore"), fuzz.limited_memory(16):
        result = fuzz.fuzz(max(problem_count(400), 100), seed)
    assert result.solved
    assert result.refused


@pytest.mark.parametrize("made", [fuzz_signatures.FUNCTIONS, fuzz_signatures.LAYERS, fuzz_signatures.LOSSES])
def test_every_argument_is_drawn(made):
    """The fuzzer has a value for every argument of every function and layer, and most of its calls can succeed."""
    for name, function in made.items():
        unknown = set(fuzz_signatures.arguments_of(function)) - set(fuzz_signatures.DRAW)
        assert not unknown, f"{name}: add to fuzz_signatures.DRAW how to draw {sorted(unknown)}"


@pytest.mark.parametrize("kind", [fuzz_signatures.FunctionCall, fuzz_signatures.LayerCall])
def test_undamaged_calls_succeed(kind):
    """At least four in ten calls made from signatures fit together, of all functions."""
    solved = collections.Counter()
    tried = collections.Counter()
    for i in range(1500):
        call = kind(fuzz.Quick(7, i), lambda _, value: value)
        tried[call.name] += 1
        with contextlib.suppress(ValueError, TypeError), np.errstate(all="ignore"):
            call.run()
            solved[call.name] += 1
    assert sum(solved.values()) >= 600
    everything = {*fuzz_signatures.FUNCTIONS} if kind is fuzz_signatures.FunctionCall else {*fuzz_signatures.LAYERS}
    assert everything <= set(tried)


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
