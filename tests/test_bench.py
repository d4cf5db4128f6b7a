"""The benchmarks' own parts: calls of the peers, ceilings, ratios, tables and verdicts. No figure is judged."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
import types

import fastconv
import numpy as np
import pytest
from fastconv import _core
from fastconv._cli.calls import Call, make_arrays
from fastconv._cli.problem import parse_problem, parse_problems

ROOT = pathlib.Path(__file__).resolve().parent.parent
if not (ROOT / "bench").is_dir():
    pytest.skip("these tests read the source tree, which is not here", allow_module_level=True)
sys.path.append(str(ROOT))

from bench import ceilings, checks, compare, networks, rows, scaling, table, workers  # noqa: E402
from bench.protocol import UnsupportedError  # noqa: E402

SMOKE = parse_problems((ROOT / "bench" / "shapes" / "smoke.txt").read_text())


def as_request(problem, name="forward", dtype="float32"):
    """What a worker is asked, after its way through JSON."""
    request = {"problem": dataclasses.asdict(problem), "pass": name, "dtype": dtype, "threads": 1}
    return json.loads(json.dumps(request))


def small(problem, dtype=np.float32):
    """The problem's arrays and our answer."""
    arrays = make_arrays(problem, dtype, np.random.default_rng(0))
    return arrays, Call(problem, arrays).forward()


# --- the peers' calls -------------------------------------------------------------------------------------------------

MODELLED = [
    *(p for p in SMOKE if p.op not in ("batch_norm", "dropout", "cross_entropy", "mse_loss")),
    parse_problem("one_sided: n=1 c=4 k=6 in=9x8 kernel=3x2 stride=2 pad=0:1x1:0 dilation=1x2 groups=2"),
    parse_problem("padded: op=conv_transpose n=1 c=4 k=6 in=5x4 kernel=3x2 stride=2 pad=1x0 output_padding=1x0"),
    parse_problem("ceil: op=max_pool n=1 c=3 in=8x8 kernel=3x3 stride=2 ceil_mode=1"),
    parse_problem("layer: op=layer_norm n=4 c=24"),
    parse_problem("instance: op=instance_norm n=2 c=4 in=6x5"),
    parse_problem("group: op=group_norm n=2 c=4 in=6x5 groups=2"),
]


@pytest.mark.parametrize("problem", MODELLED, ids=lambda p: p.name)
def test_onnx_models(problem):
    """A problem's ONNX model computes what we do, by the reference implementation of ONNX itself."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    from bench import onnx_models

    arrays, ours = small(problem)
    model = onnx_models.model_of(types.SimpleNamespace(**as_request(problem)["problem"]), arrays)
    onnx.checker.check_model(model)
    theirs = ReferenceEvaluator(model).run(None, {"x": arrays["x"]})[0]
    np.testing.assert_allclose(theirs.reshape(ours.shape), ours, rtol=1e-4, atol=1e-5)


def test_onnx_has_no_model_of_everything():
    from bench import onnx_models

    for line in ("a: op=cross_entropy n=1 c=2", "a: op=lp_pool n=1 c=1 in=4 kernel=2 norm=2.5"):
        problem = parse_problem(line)
        with pytest.raises(UnsupportedError):
            onnx_models.model_of(types.SimpleNamespace(**as_request(problem)["problem"]), small(problem)[0])


@pytest.mark.parametrize(
    "line",
    [
        "same: n=2 c=3 k=4 in=9x8 kernel=3x4 pad=same",
        "groups: n=1 c=4 k=6 in=7 kernel=3 pad=1:0 groups=2",
        "volume: n=1 c=2 k=2 in=4x5x4 kernel=2x3x2",
        "max: op=max_pool n=2 c=3 in=8x7 kernel=3x2 stride=1 pad=1:0x0:1",
        "min: op=min_pool n=2 c=3 in=8x7 kernel=2x4 stride=1",
        "avg: op=avg_pool n=2 c=3 in=8x7 kernel=3x4 stride=1 pad=1",
        "sigmoid: op=sigmoid n=2 c=3 in=4x4",
        "softmax: op=softmax n=3 c=5",
        "log_softmax: op=log_softmax n=3 c=5 in=2x2",
    ],
)
def test_scipy_calls(line):
    """What SciPy can do, it does as we do."""
    from bench import scipy_calls

    problem = parse_problem(line)
    arrays, ours = small(problem)
    call, to_first = scipy_calls.prepare(as_request(problem), arrays)
    np.testing.assert_allclose(to_first(call()), ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("strided: n=1 c=1 k=1 in=9x9 kernel=3x3 stride=2", "forward"),
        ("wide: n=8 c=64 k=64 in=56x56 kernel=3x3", "forward"),
        ("relu: op=relu n=1 c=1", "forward"),
        ("backward: n=1 c=1 k=1 in=9x9 kernel=3x3", "backward_input"),
    ],
)
def test_scipy_has_not_everything(line, name):
    from bench import scipy_calls

    problem = parse_problem(line)
    with pytest.raises(UnsupportedError):
        scipy_calls.prepare(as_request(problem, name), make_arrays(problem, "f", np.random.default_rng(0)))


# --- checks, ceilings, ratios -----------------------------------------------------------------------------------------


def test_wrong_answers_are_refused():
    truth = np.arange(1.0, 101.0)
    assert checks.checked_error(truth, truth, "conv", 1e-5, "us") == 0
    assert checks.checked_error(truth * 1.001, truth, "conv", 2e-3, "us") == pytest.approx(1e-3)
    with pytest.raises(RuntimeError, match="relative error 1"):
        checks.checked_error(truth * 1.001, truth, "conv", 1e-5, "us")
    with pytest.raises(RuntimeError, match="relative error nan"):
        checks.checked_error(truth * np.nan, truth, "conv", 1e-5, "us")
    with pytest.raises(RuntimeError, match=r"shape \(50,\)"):
        checks.checked_error(truth[:50], truth, "conv", 1e-5, "us")
    with pytest.raises(RuntimeError, match="kept 1"):
        checks.checked_error(truth, truth, "dropout", 1e-5, "us")
    assert checks.allowed_error("float32", "medium") > checks.allowed_error("float32") > checks.allowed_error("float64")


def test_multiply_adds_are_counted(isa):
    """Operations grow with the steps and with the register's width, and every thread has its share."""
    before = fastconv.get_num_threads()
    try:
        fastconv.set_num_threads(1)
        one = _core.multiply_adds(False, 80)
        assert one == 2 * _core.multiply_adds(False, 40) == 2 * _core.multiply_adds(True, 80)
        width = {"baseline": 4, "avx2": 8}.get(isa, 16)
        assert one == 2 * 12 * width * 80
        fastconv.set_num_threads(2)
        assert _core.multiply_adds(False, 80) == 2 * one
    finally:
        fastconv.set_num_threads(before)
    with pytest.raises(ValueError, match="steps"):
        _core.multiply_adds(False, -1)


def test_ceilings(monkeypatch):
    monkeypatch.setattr(ceilings, "COPY_BYTES", 2**16)
    monkeypatch.setattr(ceilings, "LEAST", 1e-4)
    measured = ceilings.measure({"dtype": "float64", "threads": None})
    assert measured["threads"] == fastconv.get_num_threads()
    assert measured["operations"] > 1e6
    assert measured["bytes"] > 1e6


def test_bytes_of_a_pass():
    """Each array once: the three of a convolution in every pass."""
    problem = parse_problem("a: n=2 c=3 k=4 in=8 kernel=3")
    output = np.empty((2, 4, 6))
    for name in ("forward", "backward_input", "backward_weight"):
        assert rows.bytes_of(problem, name, output, "float32") == 4 * (2 * 3 * 8 + 4 * 3 * 3 + 2 * 4 * 6)
    relu = parse_problem("a: op=relu n=2 c=3")
    assert rows.bytes_of(relu, "backward", np.empty((2, 3)), "float64") == 8 * 3 * 6


def test_environment_holds_libraries_back():
    environment = workers.environment_of("avx2")
    assert environment["FASTCONV_ISA"] == "avx2"
    assert environment["ONEDNN_MAX_CPU_ISA"] == environment["DNNL_MAX_CPU_ISA"] == "AVX2"
    assert environment["ATEN_CPU_CAPABILITY"] == "avx2"
    assert workers.environment_of(None) == dict(os.environ)


# --- tables -----------------------------------------------------------------------------------------------------------


def made_row(name, ours, theirs, error=1e-7, **more):
    """A row as `rows.measure` returns it; the first figure is channels first."""
    row = {"shapes": "file", "name": name, "pass": "forward", "operations": 2e9, "bytes": 1e6, "of_ceiling": 0.5}
    row["seconds"] = {f"fastconv/{layout}": s for layout, s in zip(rows.FORMATS, ours, strict=False)}
    row["seconds"] |= {f"torch/{layout}": s for layout, s in zip(rows.FORMATS, theirs, strict=False)}
    row["errors"] = {call: error if call.startswith("fastconv") else 2e-7 for call in row["seconds"]}
    row["spread"] = dict.fromkeys(row["seconds"], 0.01)
    return row | {"ratios": rows.ratios(row)} | more


def test_ratios():
    """Best against best, and channels first against channels first."""
    assert made_row("a", (2.0, 1.0), (3.0, 8.0))["ratios"] == {"torch": {"best": 3.0, "first": 1.5}}
    assert made_row("a", (2.0,), (3.0, 1.0))["ratios"] == {"torch": {"best": 0.5, "first": 1.5}}


def test_summary():
    made = [made_row("a", (1.0,), (2.0,)), made_row("b", (1.0,), (8.0,), error=3e-7)]
    made.append(made_row("c", (1.0,), (0.5,), shapes="other"))
    summary = {each["shapes"]: each for each in table.summary_of(made, ("torch", "scipy"))}
    assert summary["file"]["best"] == pytest.approx(4.0)
    assert summary["file"]["worst"] == {"ratio": 2.0, "name": "file/a"}
    assert summary["file"]["less_exact"] == ["b"]
    assert summary["all"]["rows"] == 3
    assert summary["all"]["best"] == pytest.approx(2.0)
    assert summary["all"]["worst"]["name"] == "other/c"
    assert set(summary) == {"file", "other", "all"}
    assert len(table.summary_lines(list(summary.values()))) == 4
    doubles = [made_row("a", (1.0,), (2.0,), error=5e-16), made_row("b", (1.0,), (2.0,), error=1e-14)]
    for row in doubles:
        row["errors"]["torch/channels_first"] = 0.0
    assert table.summary_of(doubles, ("torch",))[0]["less_exact"] == ["b"]


@pytest.mark.parametrize("peers", [(), ("torch",), ("torch", "onnxruntime", "scipy")])
def test_columns_stand_below_their_heads(peers, tmp_path):
    row = made_row("a", (1.0, 2.0), (2.0,))
    assert len(table.line_of(row, peers)) == len(table.header(peers))
    if peers:
        table.chart([row], "torch", tmp_path / "chart.png")
        assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


# --- the commands -----------------------------------------------------------------------------------------------------


def test_compare(tmp_path, capsys):
    """Two rows from the command line to the JSON files."""
    command = ["--smoke", "--peers", "scipy", "--names", "conv_1d", "relu", "--passes", "forward", "--threads", "1"]
    files = [f"--{name}={tmp_path / name}" for name in ("json", "summary")]
    assert compare.main([*command, *files]) == 0
    conv, relu = json.loads((tmp_path / "json").read_text())
    assert set(conv["seconds"]) == {"fastconv/channels_first", "fastconv/channels_last", "scipy/channels_first"}
    assert conv["errors"]["scipy/channels_first"] < 1e-6
    assert 0 < conv["of_ceiling"] < 1.5
    assert set(relu["seconds"]) == {"fastconv/channels_first", "fastconv/channels_last"}
    (file, every) = json.loads((tmp_path / "summary").read_text())
    assert file["best"] == every["best"] == pytest.approx(conv["ratios"]["scipy"]["best"])
    shown = capsys.readouterr().out
    assert "conv_1d" in shown
    assert "FAILED" not in shown


def test_missing_peers_are_named(monkeypatch, capsys):
    monkeypatch.setattr(compare, "missing", lambda peers: ["scipy"] if "scipy" in peers else [])
    with pytest.raises(SystemExit):
        compare.parse_arguments(["--peers", "scipy"])
    assert "pip install '.[bench]'" in capsys.readouterr().err
    options = compare.parse_arguments([])
    assert "scipy" not in options.peers
    assert "scipy" in options.absent
    assert "onnxruntime" in compare.parse_arguments(["--isa", "avx2"]).absent


def test_judges_of_sweeps():
    assert scaling.against_the_one_before([1.0, 2.0, 1.0]) == [1.0, 2.0, 2.0]
    assert scaling.against_the_first([2.0, 1.0, 4.0]) == [1.0, 0.5, 2.0]
    assert scaling.against_the_least([2.0, 1.0, 4.0]) == [2.0, 1.0, 4.0]


@pytest.mark.parametrize("sweep", [s for sweeps in scaling.SWEEPS.values() for s in sweeps], ids=lambda s: s.line)
def test_sweeps_are_problems(sweep):
    problems = sweep.problems()
    assert len({str(problem) for problem in problems}) == len(sweep.values)
    assert all(problem.n >= 1 for problem in problems)


def test_scaling(monkeypatch, tmp_path):
    """A sweep of two small points and one layer on two threads, to the end; the verdicts are the machine's."""
    sweep = scaling.Sweep("size", "a: n=1 c=2 k=2 in={} kernel=3", (8, 9), scaling.against_the_first, 1e9)
    monkeypatch.setattr(scaling, "SWEEPS", {"size": (sweep,)})
    monkeypatch.setattr(scaling, "THREADED", ("b: n=1 c=2 k=2 in=8 kernel=3",))
    monkeypatch.setattr(scaling, "THREADS_LIMIT", 1e9)
    status = scaling.main(["--rounds", "1", "--seconds", "0.001", "--json", str(tmp_path / "json")])
    kept, missed = json.loads((tmp_path / "json").read_text())
    assert status == 1
    assert kept["kept"]
    assert len(kept["figures"]) == 2
    assert missed["sweep"] == "threads"
    assert not missed["kept"]


def test_networks(monkeypatch, tmp_path, capsys):
    """A forward pass and a step of LeNet-5, ours and PyTorch's in both formats: the same outputs and losses."""
    monkeypatch.setattr(networks, "TASKS", {"lenet5": ("forward", "step")})
    command = ["--networks", "lenet5", "--batch", "2", "--rounds", "1", "--seconds", "0.001", "--threads", "1"]
    assert networks.main([*command, "--peers", "torch", "--json", str(tmp_path / "json")]) == 0
    measured = json.loads((tmp_path / "json").read_text())
    assert [row["task"] for row in measured] == ["forward", "step"]
    for row in measured:
        assert set(row["seconds"]) == {
            f"{library}/{layout}" for library in ("fastconv", "torch") for layout in rows.FORMATS
        }
        assert all(error < 1e-4 for errors in row["errors"].values() for error in errors)
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_networks_that_differ_are_not_timed(monkeypatch, capsys):
    monkeypatch.setattr(networks, "TASKS", {"lenet5": ("forward",)})
    monkeypatch.setattr(networks, "ALLOWED", {"forward": (-1.0,), "step": (-1.0, -1.0)})
    assert networks.main(["--networks", "lenet5", "--batch", "1", "--peers"]) == 1
    assert "FAILED: answers differ" in capsys.readouterr().out
