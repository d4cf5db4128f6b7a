"""Every example runs, in its short form, and shows what it is there to show."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest
from test_datasets import write_bars

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("these tests read the source tree, which is not here", allow_module_level=True)


def _run(name, output):
    """What an example prints, and the pictures that it makes."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(EXAMPLES / f"{name}.py"), "--small", "--output", str(output)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    pictures = sorted(output.iterdir())
    assert all(picture.read_bytes()[:4] == b"\x89PNG" for picture in pictures)
    return done.stdout, [picture.name for picture in pictures]


def _numbers(pattern, text):
    return [float(number) for number in re.findall(pattern, text)]


def test_every_example_is_listed_and_tested():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"example"}
    assert scripts == set(re.findall(r"`python examples/(\w+)\.py`", (EXAMPLES / "README.md").read_text()))
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert scripts == tests - {"every_example_is_listed_and_tested", "the_tutorial_walks_all_examples"}


def test_the_tutorial_walks_all_examples():
    """In the order of the list, with their pictures, which must not become heavy."""
    docs = EXAMPLES.parent / "docs"
    text = (docs / "tutorial.md").read_text()
    listed = re.findall(r"`python examples/(\w+)\.py`", (EXAMPLES / "README.md").read_text())
    assert re.findall(r"\(\.\./examples/(\w+)\.py\)", text) == listed
    pictures = [docs / name for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)]
    assert set(pictures) == set((docs / "images" / "tutorial").iterdir())
    assert sum(picture.stat().st_size for picture in pictures) < 1.5e6
    headings = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in re.findall(r"^## (.*)", text, re.M)
    }
    assert set(re.findall(r"\(#([^)]+)\)", text)) <= headings


def test_convolution_by_hand(tmp_path):
    text, _ = _run("convolution_by_hand", tmp_path)
    differences = _numbers(r"difference .*: (\S+)", text)
    assert len(differences) == 3
    assert max(differences) < 1e-12


def test_classical_kernels(tmp_path):
    text, pictures = _run("classical_kernels", tmp_path)
    assert pictures == ["classical-kernels.png"]
    photo, blurred, sharpened, unsharp = _numbers(r": ([\d.]+)", text)
    assert blurred < 0.3 * photo < photo < unsharp < sharpened


def test_convolution_arithmetic(tmp_path):
    text, pictures = _run("convolution_arithmetic", tmp_path)
    assert pictures == ["convolution-arithmetic.png", "convolution-matrix.png"]
    sizes = re.findall(r"(\d) x \d -> (\d) x \d, two outputs look at (\d) and (\d)", text)
    # Outputs: (in + 2 padding - reach) / stride + 1, and the inverse. Pixels: those of 3 x 3 that are not padding.
    assert [tuple(map(int, case)) for case in sizes] == [
        (5, 3, 9, 9),
        (5, 5, 9, 9),
        (5, 3, 9, 6),
        (5, 5, 9, 6),
        (3, 7, 1, 2),
    ]


def test_vanishing_gradients(tmp_path):
    text, pictures = _run("vanishing_gradients", tmp_path)
    assert pictures == ["vanishing-gradients.png"]
    sigmoid, normed, relu, residual = _numbers(r": (\S+)", text)
    assert sigmoid < 1e-5
    assert all(0.05 < ratio < 50 for ratio in (normed, relu, residual))


def test_overfitting(tmp_path):
    text, pictures = _run("overfitting", tmp_path)
    assert pictures == ["overfitting.png"]
    losses = _numbers(r"whose loss is (\S+)", text)
    known, others = _numbers(r"knows +(\S+) %", text), _numbers(r"and +(\S+) % of the others", text)
    assert len(losses) == 5
    assert known[0] == 100
    assert others[0] < 95, "by heart"
    assert losses[0] == max(losses), "everything helps"


def test_optimizers(tmp_path):
    text, pictures = _run("optimizers", tmp_path)
    assert pictures == ["optimizers.png"]
    losses = _numbers(r"loss (\S+),", text)
    assert len(losses) == 5
    assert losses[0] == max(losses), "plain descent is the slowest"


def test_digit_heatmaps(tmp_path):
    text, pictures = _run("digit_heatmaps", tmp_path)
    assert pictures == ["heatmaps.png"]
    assert _numbers(r"epoch 3: (\S+) %", text)[0] > 90
    hot, elsewhere = _numbers(r"map: (\S+),", text) + _numbers(r"elsewhere (\S+)", text)
    assert hot > 2 * elsewhere, "the map lies on what the answer needs"


def test_autoencoder(tmp_path):
    text, pictures = _run("autoencoder", tmp_path)
    assert pictures == ["autoencoder.png"]
    assert _numbers(r"the error is (\d+)%", text)[0] < 50


def test_cross_validation(tmp_path):
    text, _ = _run("cross_validation", tmp_path)
    means, spreads = _numbers(r"([\d.]+) % ±", text), _numbers(r"± ([\d.]+)", text)
    assert len(means) == len(spreads) == 4
    guessing, linear, network, hasty = means
    assert guessing < 20 < linear
    assert hasty < network


def test_clothes(tmp_path, monkeypatch):
    """On a stand-in for Fashion-MNIST in its format: a bright bar, somewhere else for each class."""
    data = tmp_path / "data" / "fashion-mnist"
    write_bars(data, train=640, t10k=100)
    monkeypatch.setenv("FASTCONV_DATA", str(data.parent))
    text, pictures = _run("clothes", tmp_path / "pictures")
    assert pictures == ["clothes.png"]
    assert _numbers(r"epoch 4: (\S+) %", text)[0] > 60
    assert re.search(r"most often, a [\w -]+ is called a [\w -]+: \d+ times", text)


def test_colour_images(tmp_path):
    text, pictures = _run("colour_images", tmp_path)
    assert pictures == ["colour-images.png"]
    assert "digits on photographs" in text
    assert all(0 < right < 100 for right in _numbers(r"([\d.]+) % right", text))
    # ResNet-18's published parameters shrink with the square of its width; those counts are tested elsewhere.
    names = re.findall(r"^([\w-]+) +[\d.]+ % right after", text, re.MULTILINE)
    assert names == ["AlexNet", "ResNet-18", "mini-Xception"]


def test_galaxies(tmp_path):
    text, pictures = _run("galaxies", tmp_path)
    assert pictures == ["galaxies.png"]
    mean, once, eight = (_numbers(rf"{what} (0\.\d+)", text)[-1] for what in ("answers", "network", "symmetries"))
    assert once < 0.97 * mean, "it sees something"
    assert eight < once + 1e-3
    assert _numbers(r"to 1 within (\S+)", text)[0] < 1e-5
