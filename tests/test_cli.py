"""The command line: info, the demo from beginning to end on few digits, and what interruptions leave."""

from __future__ import annotations

import base64
import html.parser
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import fastconv
import numpy as np
import pytest
from fastconv import _cli, datasets, models, nn, optim, train, visualize
from fastconv._cli import output, training
from test_datasets import write_bars

PICTURES = {
    "filters-conv1.png",
    "filters-conv2.png",
    "feature-maps.png",
    "misread.png",
    "confusion.png",
    "training.png",
    "heatmaps.png",
    "readings.png",
}


@pytest.fixture
def few_digits(tmp_path, monkeypatch):
    """A small stand-in for MNIST under FASTCONV_DATA: crude digits, so that an epoch takes a moment only."""
    folder = tmp_path / "data"
    write_bars(folder, train=400, t10k=60)
    monkeypatch.setenv("FASTCONV_DATA", str(folder))
    return folder


def test_info_prints_the_configuration(capsys):
    fastconv.show_config()
    expected = capsys.readouterr().out
    assert _cli.main(["info"]) == 0
    assert capsys.readouterr().out == expected
    assert expected.strip()


def test_version_and_help(capsys):
    with pytest.raises(SystemExit) as left:
        _cli.main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"fastconv {fastconv.__version__}\n"
    with pytest.raises(SystemExit) as left:
        _cli.main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "info" in text
    assert "demo" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["train"], "invalid choice: 'train'"),
        (["demo", "--epochs", "0"], "argument --epochs: expected a positive number, got 0"),
        (["demo", "--lr", "-1"], "argument --lr: expected a positive number, got -1"),
        (["demo", "--lr", "nan"], "argument --lr: expected a positive number, got nan"),
        (["demo", "--batch-size", "x"], "argument --batch-size: invalid int value: 'x'"),
        (["demo", "--seed", "-1"], "argument --seed: expected a non-negative number, got -1"),
        (["demo", "--threads", "0"], "argument --threads: expected a positive number, got 0"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as left:
        _cli.main(arguments)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_demo_from_beginning_to_end(few_digits, tmp_path, capsys):
    target = tmp_path / "pictures"
    status = _cli.main(["demo", "--epochs", "6", "--lr", "0.01", "--batch-size", "20", "--output", str(target)])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    assert captured.err == "", "no progress bar where there is no terminal"
    lines = captured.out.splitlines()
    assert "400 to learn from, 60 held out" in lines[0]
    assert str(few_digits) in lines[0]
    assert "LeNet-5, 61,706 parameters" in lines[1]
    assert fastconv.__version__ in lines[1]
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert len(epochs) == 6
    for number, line in enumerate(epochs, 1):
        assert re.fullmatch(
            rf"epoch {number}/6  loss \d+\.\d{{4}}  accuracy [ \d]\d*\.\d\d %  [\d,]+ digits/s", line
        ), line
    accuracy = re.search(r"Test accuracy: ([\d.]+) % \((\d+) of 60 held-out digits misread\)", captured.out)
    assert accuracy
    assert float(accuracy[1]) > 50
    assert float(accuracy[1]) == pytest.approx(100 * (60 - int(accuracy[2])) / 60, abs=0.01)
    matrix = np.array([[0 if cell == "." else int(cell) for cell in line.split()[1:]] for line in _rows(lines)])
    assert matrix.shape == (10, 10)
    assert matrix.sum() == 60
    assert np.trace(matrix) == 60 - int(accuracy[2])
    assert str(target) in captured.out
    assert {path.name for path in target.iterdir()} == PICTURES | {"run.json", "model.npz"}
    for path in map(target.joinpath, PICTURES):
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert path.stat().st_size > 5000
    model = models.lenet5()
    nn.load(model, target / "model.npz")
    digits = datasets.load_digits()
    outputs = train.predict(model, training.as_input(digits.test_images))
    assert 100 * train.accuracy(outputs, digits.test_labels) == pytest.approx(float(accuracy[1]), abs=0.01)

    assert _cli.main(["report", str(target)]) == 0
    assert str(target / "report.html") in capsys.readouterr().out
    text = (target / "report.html").read_text()
    assert f"<b>{accuracy[1]} %</b> of 60 held-out digits" in text
    for name in PICTURES:
        assert base64.b64encode((target / name).read_bytes()).decode() in text, name
    assert "fastconv demo --network lenet5 --epochs 6 --batch-size 20 --lr 0.01 --seed 0" in text
    assert text.count("<tr><td>") == 6, "a row for each epoch"
    assert "61,706" in text
    assert not re.search(r"(src|href)=.(?!data:)|url\(|<script", text), "it needs nothing from elsewhere"
    (target / "report.html").unlink()
    assert {path.name for path in tmp_path.iterdir()} == {"data", "pictures"}, "nothing temporary is left"


def test_demo_with_activation_maps(few_digits, tmp_path, capsys):
    target = tmp_path / "pictures"
    assert _cli.main(["demo", "--network", "pooled", "--epochs", "2", "--output", str(target)]) == 0
    assert "16,794 parameters" in capsys.readouterr().out
    assert {path.name for path in target.iterdir()} == PICTURES | {"run.json", "model.npz"}
    assert _cli.main(["report", str(target)]) == 0
    text = (target / "report.html").read_text()
    assert "The activation map shows where" in text
    assert "GlobalAvgPool" in text


def _rows(lines):
    return [line for line in lines if re.fullmatch(r"  \d( +(\d+|\.)){10}", line)]


def test_demo_is_reproducible(few_digits, tmp_path, capsys):
    outputs = []
    for threads in ("1", "2"):
        assert _cli.main(["demo", "--epochs", "1", "--threads", threads, "--output", str(tmp_path / "p")]) == 0
        outputs.append(re.findall(r"loss \S+  accuracy +\S+", capsys.readouterr().out))
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 1


def test_demo_names_what_is_missing(tmp_path, capsys, monkeypatch, few_digits):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert _cli.main(["demo", "--output", str(tmp_path / "pictures")]) == 1
    assert "pip install 'fastconv[demo]'" in capsys.readouterr().err
    assert not (tmp_path / "pictures").exists()


def test_demo_refuses_a_file_as_output(tmp_path, capsys, few_digits):
    (tmp_path / "file").write_text("mine")
    assert _cli.main(["demo", "--output", str(tmp_path / "file")]) == 1
    assert "is a file, expected a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("there_before", [False, True])
def test_interrupted_demo_leaves_nothing(few_digits, tmp_path, number, there_before):
    target = tmp_path / "out" / "pictures"
    if there_before:
        target.mkdir(parents=True)
        (target / "misread.png").write_text("of last time")
    command = [sys.executable, "-W", "ignore", "-m", "fastconv", "demo", "--epochs", "100000", "--output", str(target)]
    # A shell's background job starts with SIGINT ignored, and its children inherit that: a user's terminal does not.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "fastconv demo: interrupted\n"
    if there_before:
        assert [path.name for path in target.iterdir()] == ["misread.png"]
        assert (target / "misread.png").read_text() == "of last time"
        assert [path.name for path in target.parent.iterdir()] == ["pictures"]
    else:
        assert [path.name for path in tmp_path.iterdir()] == ["data"]


class _Tags(html.parser.HTMLParser):
    """Checks that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_of_a_record(tmp_path, capsys):
    """What stands in the record stands on the page, escaped; what is missing is named."""
    assert _cli.main(["report", str(tmp_path)]) == 1
    assert "has no run.json; make a run first, for example: fastconv demo" in capsys.readouterr().err
    epoch = {"epoch": 1, "loss": 0.5, "val_loss": 0.25, "val_accuracy": 0.75, "lr": 0.001}
    record = {
        "title": "a < b", "about": "x & y", "data": "<script>", "command": "fastconv 'demo'", "version": "9",
        "engine": "e", "seconds": 3.2, "samples": 1234, "parameters": 56789, "history": [epoch],
        "matrix": [[3, 1], [0, 4]], "summary": "a <table>",
        "pictures": [{"file": "training.png", "title": "it's", "about": "<b>"}],
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert _cli.main(["report", str(tmp_path)]) == 1
    assert "training.png" in capsys.readouterr().err
    (tmp_path / "training.png").write_bytes(b"picture")
    assert _cli.main(["report", str(tmp_path), "--output", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    tags = _Tags()
    tags.feed(text)
    assert not tags.open
    assert "script" not in tags.seen
    assert "b" in tags.seen
    for expected in (
        "<h1>a &lt; b</h1>", "x &amp; y", "&lt;script&gt;", "87.50 %", "1,234", "56,789", "a &lt;table&gt;",
        "&lt;b&gt;", "alt='it&#x27;s'", base64.b64encode(b"picture").decode(), "<td>75.00 %</td>",
    ):  # fmt: skip
        assert expected in text, expected
    for content in ("{", "{}", "[]"):
        (tmp_path / "run.json").write_text(content)
        assert _cli.main(["report", str(tmp_path)]) == 1
        assert "run.json is damaged" in capsys.readouterr().err


def test_a_missing_command_is_left_out(monkeypatch, capsys):
    monkeypatch.setitem(_cli.COMMANDS, "fly", "not written yet")
    with pytest.raises(SystemExit):
        _cli.main(["--help"])
    assert "fly" not in capsys.readouterr().out


# ---- the folder that appears whole ---------------------------------------------------------------------------------


def test_whole_folder(tmp_path):
    target = tmp_path / "a" / "b"
    with output.whole_folder(target) as folder:
        (folder / "one").write_text("1")
        assert not target.exists()
        assert folder.parent == tmp_path
    assert (target / "one").read_text() == "1"
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o777 & ~mask
    (target / "kept").write_text("mine")
    with output.whole_folder(target) as folder:
        (folder / "one").write_text("2")
        assert (target / "one").read_text() == "1"
    assert {path.name: path.read_text() for path in target.iterdir()} == {"one": "2", "kept": "mine"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_whole_folder_after_an_exception(tmp_path):
    def fail():
        with output.whole_folder(tmp_path / "target") as folder:
            (folder / "one").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_whole_folder_is_not_torn_by_a_signal(tmp_path, monkeypatch):
    """A signal while the files move takes effect when all have."""
    replace = pathlib.Path.replace

    def slow_replace(self, target):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return replace(self, target)

    monkeypatch.setattr(pathlib.Path, "replace", slow_replace)
    target = tmp_path / "target"
    target.mkdir()

    def write():
        with output.whole_folder(target) as folder:
            for name in ("one", "two", "three"):
                (folder / name).write_text(name)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert {path.name for path in target.iterdir()} == {"one", "two", "three"}
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_whole_folder_in_another_thread(tmp_path):
    """Signals belong to the main thread; elsewhere the folder works without them."""

    def write():
        with output.whole_folder(tmp_path / "target") as folder:
            (folder / "one").write_text("1")

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert (tmp_path / "target" / "one").read_text() == "1"


# ---- training ------------------------------------------------------------------------------------------------------


def test_distorted_images_are_like_the_originals():
    rng = np.random.default_rng(0)
    images = np.zeros((200, 28, 28), np.float32)
    images[:, 9:19, 11:17] = 1
    still = training.distort(images, rng, shift=0, angle=0, scale=0, shear=0, bend=0)
    np.testing.assert_allclose(still, images, atol=1e-5)
    moved = training.distort(images, rng)
    assert moved.dtype == np.float32
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-6
    areas = moved.sum((1, 2))
    assert areas.mean() == pytest.approx(60, rel=0.1)
    assert areas.min() > 30
    assert areas.max() < 120
    centres = np.stack([(moved * axis).sum((1, 2)) / moved.sum((1, 2)) for axis in np.indices((28, 28))], 1)
    offsets = centres - [13.5, 13.5]
    assert np.abs(offsets).max() < 2 + 1.5
    assert np.abs(offsets.mean(0)).max() < 0.4
    assert len(np.unique(areas)) > 190, "each its own distortion"


def test_distort_shifts_by_whole_pixels():
    class Fixed:
        """Draws the largest value of every interval."""

        def uniform(self, low, high, size):
            return np.full(size, high)

        def normal(self, mean, deviation, size):
            return np.zeros(size)

    image = np.random.default_rng(0).random((1, 9, 7)).astype(np.float32)
    moved = training.distort(image, Fixed(), shift=2.0, angle=0, scale=0, shear=0, bend=0)
    expected = np.zeros_like(image)
    expected[:, :-2, :-2] = image[:, 2:, 2:]
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_learning_rate_rises_and_falls():
    optimizer = optim.SGD([nn.Parameter(np.ones(1))], lr=0.5)
    schedule = training.rise_and_fall(optimizer, 100)
    rates = [optimizer.lr]
    for _ in range(100):
        schedule.step()
        rates.append(optimizer.lr)
    assert max(rates) == pytest.approx(0.5)
    assert rates.index(max(rates)) == 15
    assert rates[0] > 0
    assert rates[-1] == pytest.approx(0)
    assert sorted(rates[:16]) == rates[:16]
    assert sorted(rates[15:], reverse=True) == rates[15:]


# ---- pictures ------------------------------------------------------------------------------------------------------


def test_filters_are_scaled_weights():
    layer = nn.Conv2d(2, 3, 4)
    layer.weight.data[1] = 0
    scaled = visualize.filters(layer)
    assert np.abs(scaled[[0, 2]]).max((1, 2, 3)).tolist() == [1, 1]
    np.testing.assert_allclose(scaled[0] * np.abs(layer.weight.data[0]).max(), layer.weight.data[0], rtol=1e-6)
    assert not scaled[1].any()
    assert visualize.filters(nn.SeparableConv1d(2, 3, 4)).shape == (2, 1, 4)
    with pytest.raises(TypeError, match="layer: expected a convolution, got Linear"):
        visualize.filters(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="expected a two-dimensional convolution, got Conv1d"):
        visualize.filters_figure(nn.Conv1d(2, 2, 2))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_feature_maps(data_format):
    model = models.lenet5(data_format=data_format)
    x = np.random.default_rng(0).random((2, 28, 28)).astype(np.float32)
    x = x[:, None] if data_format == "channels_first" else x[..., None]
    y = model(x)
    maps = visualize.feature_maps(model, x)
    assert list(maps) == [name for name, _ in model.named_children()]
    assert maps["conv2"].shape == (2, 16, 10, 10)
    assert maps["fc1"].shape == (2, 120)
    np.testing.assert_array_equal(maps["fc3"], y)
    np.testing.assert_array_equal(maps["relu1"], np.maximum(maps["conv1"], 0))
    assert model.training
    model.backward(np.ones_like(y))  # the forward before is still the latest


def test_feature_maps_figure_wants_one_image():
    with pytest.raises(ValueError, match="x: expected one image with one channel, got shape"):
        visualize.feature_maps_figure(models.lenet5(), np.zeros((2, 1, 28, 28), np.float32))


def test_montage():
    tiles = np.arange(5 * 2 * 3, dtype=float).reshape(5, 2, 3)
    canvas = visualize.montage(tiles, columns=3)
    assert canvas.shape == (5, 11)
    np.testing.assert_array_equal(canvas[3:5, 4:7], tiles[4])
    assert np.isnan(canvas[2]).all()
    assert np.isnan(canvas[:, 3]).all()
    assert np.isnan(canvas[3:, 8:]).all()


@pytest.mark.parametrize("wrong", [0, 1, 7, 13, 50])
def test_misread_figure_for_any_number(tmp_path, wrong):
    figure = visualize.misread_figure(
        np.zeros((wrong, 28, 28)), np.zeros(wrong, int), np.ones(wrong, int), np.full(wrong, 0.5), 1000
    )
    figure.savefig(tmp_path / "picture.png")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["read 1  (50 %)"] * min(wrong, 40)


def test_other_figures_of_little(tmp_path):
    visualize.training_figure([1.0], [1.0]).savefig(tmp_path / "a.png")
    visualize.confusion_figure(np.eye(3, dtype=int), ["a", "b", "c"]).savefig(tmp_path / "b.png")
    assert len(list(tmp_path.iterdir())) == 2


# ---- without the extras --------------------------------------------------------------------------------------------


def test_nothing_heavy_is_imported_before_it_is_used():
    code = (
        "import sys, fastconv._cli.demo, fastconv.visualize, fastconv.nn, fastconv.testing\n"
        "heavy = {'matplotlib', 'sklearn', 'mlxtend', 'tqdm', 'torch', 'scipy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
