"""A network's state: to PyTorch and back, to files and back, all of it or nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from fastconv import nn


class Theirs(torch.nn.Module):
    """Every kind of weight in one network of PyTorch's."""

    def __init__(self):
        super().__init__()
        t = torch.nn
        self.stem = t.Sequential(t.Conv2d(3, 8, 3, padding=1, bias=False), t.BatchNorm2d(8), t.ReLU())
        self.grouped = t.Conv2d(8, 12, 3, stride=2, groups=4)
        self.norm = t.BatchNorm2d(12, affine=False)
        self.up = t.ConvTranspose2d(12, 6, 3, stride=2, groups=3, output_padding=1)
        self.plain_norm = t.BatchNorm2d(6, track_running_stats=False)
        self.head = t.ModuleDict({"pool": t.Flatten(), "fc": t.Linear(6 * 8 * 8, 5)})

    def forward(self, x):
        x = self.plain_norm(self.up(self.norm(self.grouped(self.stem(x)))))
        return self.head["fc"](self.head["pool"](x))


class Ours(nn.Module):
    """The same, attribute for attribute."""

    def __init__(self, dtype=np.float64):
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False, dtype=dtype), nn.BatchNorm2d(8, dtype=dtype), nn.ReLU()
        )
        self.grouped = nn.Conv2d(8, 12, 3, stride=2, groups=4, dtype=dtype)
        self.norm = nn.BatchNorm2d(12, affine=False, dtype=dtype)
        self.up = nn.ConvTranspose2d(12, 6, 3, stride=2, groups=3, output_padding=1, dtype=dtype)
        self.plain_norm = nn.BatchNorm2d(6, track_running_stats=False, dtype=dtype)
        self.head = nn.Sequential({"pool": nn.Flatten(), "fc": nn.Linear(6 * 8 * 8, 5, dtype=dtype)})

    def forward(self, x):
        return self.head(self.plain_norm(self.up(self.norm(self.grouped(self.stem(x))))))


IMAGE = np.random.default_rng(0).standard_normal((4, 3, 8, 8))


def _trained(seed=0):
    """PyTorch's network after a few forwards in training mode, so that its statistics have moved."""
    torch.manual_seed(seed)
    net = Theirs().double()
    for _ in range(3):
        net(torch.from_numpy(IMAGE) + torch.randn(4, 3, 8, 8))
    return net


def _assert_same_function(ours, theirs):
    for training in (False, True):  # evaluation first: training moves the statistics
        expected = theirs.train(training)(torch.from_numpy(IMAGE)).detach().numpy()
        # A dozen sums of at most 384 terms each, of size about 1.
        np.testing.assert_allclose(ours.train(training)(IMAGE), expected, rtol=0, atol=1e-12)


def _assert_same_state(actual, expected):
    assert list(actual) == list(expected)
    for name, value in expected.items():
        value = np.asarray(value)
        assert (actual[name].dtype, actual[name].shape) == (value.dtype, value.shape), name
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_pytorchs_state_is_ours():
    theirs, ours = _trained(), Ours()
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    assert ours.stem[1].num_batches_tracked == 3
    _assert_same_state(ours.state_dict(), theirs.state_dict())
    _assert_same_function(ours, theirs)


def test_our_state_is_pytorchs():
    ours, theirs = Ours(), Theirs().double()
    for _ in range(2):
        ours(IMAGE)
    state = {name: torch.from_numpy(array) for name, array in ours.state_dict().items()}
    assert str(theirs.load_state_dict(state, strict=True)) == "<All keys matched successfully>"
    assert theirs.norm.num_batches_tracked == 2
    _assert_same_state(ours.state_dict(), theirs.state_dict())
    _assert_same_function(ours, theirs)


def test_everything_wrong_is_said_at_once_and_nothing_done():
    ours = Ours()
    before = ours.state_dict()
    state = {name: np.asarray(value) + 1 for name, value in _trained().state_dict().items()}
    state["stem.0.weight"] = state["stem.0.weight"].transpose(1, 0, 2, 3)
    state["up.bias"] = state["up.bias"][:5]
    state["head.fc.weight"] = state["head.fc.weight"].astype(complex)
    state["head.fc.more"] = np.zeros(1)
    del state["norm.running_var"]
    with pytest.raises(ValueError, match="does not fit Ours") as caught:
        ours.load_state_dict(state)
    for message in (
        "missing names ['norm.running_var']",
        "unexpected names ['head.fc.more']",
        "stem.0.weight has shape (3, 8, 3, 3), expected (8, 3, 3, 3)",
        "up.bias has shape (5,), expected (6,)",
        "head.fc.weight has dtype complex128, expected float64",
    ):
        assert message in str(caught.value)
    _assert_same_state(ours.state_dict(), before)
    with pytest.raises(ValueError, match="has shape"):
        ours.load_state_dict(state, strict=False)
    _assert_same_state(ours.state_dict(), before)


def test_what_does_not_match_is_returned_if_not_strict():
    ours = Ours()
    before = ours.state_dict()
    state = {f"module.{name}": value for name, value in _trained().state_dict().items()}
    state["up.bias"] = torch.zeros(6)
    result = ours.load_state_dict(state, strict=False)
    assert result.missing_keys == [name for name in before if name != "up.bias"]
    assert result.unexpected_keys == [name for name in state if name != "up.bias"]
    _assert_same_state(ours.state_dict(), before | {"up.bias": np.zeros(6)})


def test_a_bfloat16_tensor_keeps_its_values():
    values = torch.randn(2, 3).bfloat16()
    layer = nn.Linear(3, 2, bias=False)
    layer.load_state_dict({"weight": values})
    np.testing.assert_array_equal(layer.weight.data, values.float().numpy())


# ---- files ---------------------------------------------------------------------------------------------------------

each_suffix = pytest.mark.parametrize("suffix", [".npz", ".safetensors"])


@each_suffix
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_a_file_holds_every_bit(suffix, dtype, tmp_path):
    net, other = Ours(dtype), Ours(dtype)
    net.norm.num_batches_tracked += 7
    path = tmp_path / f"net{suffix}"
    assert nn.save(net, path) is None
    assert os.listdir(tmp_path) == [path.name], "no temporary file stays"
    assert nn.load(other, path) == ([], [])
    _assert_same_state(other.state_dict(), net.state_dict())
    nn.save(Ours(dtype), str(path))
    nn.load(other, str(path))
    assert other.norm.num_batches_tracked == 0


@each_suffix
def test_files_of_pytorchs_and_for_pytorch(suffix, tmp_path):
    theirs, ours, path = _trained(), Ours(), tmp_path / f"net{suffix}"
    state = theirs.state_dict()
    if suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in state.items()})
    else:
        safetensors.torch.save_file(state, path)
    nn.load(ours, path)
    _assert_same_state(ours.state_dict(), state)
    nn.save(ours, path)
    back = dict(np.load(path)) if suffix == ".npz" else safetensors.torch.load_file(path)
    Theirs().double().load_state_dict({n: torch.as_tensor(v) for n, v in back.items()}, strict=True)
    _assert_same_state({name: np.asarray(back[name]) for name in state}, state)


def test_pytorchs_bfloat16_file(tmp_path):
    values = {"weight": torch.randn(2, 3).bfloat16(), "bias": torch.tensor([float("inf"), -0.0]).bfloat16()}
    safetensors.torch.save_file(values, tmp_path / "linear.safetensors")
    layer = nn.Linear(3, 2)
    nn.load(layer, tmp_path / "linear.safetensors")
    np.testing.assert_array_equal(layer.weight.data, values["weight"].float().numpy())
    assert layer.bias.data.tobytes() == values["bias"].float().numpy().tobytes()


@each_suffix
def test_not_strict(suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    nn.save(nn.Linear(3, 2), path)
    layer = nn.Linear(3, 2, bias=False)
    with pytest.raises(ValueError, match=re.escape("unexpected names ['bias']")):
        nn.load(layer, path)
    assert nn.load(layer, path, strict=False) == ([], ["bias"])


@each_suffix
def test_any_name_can_be_saved(suffix, tmp_path):
    """Names that ``numpy.savez`` would take for its own arguments, or that look like paths."""
    net = nn.Module()
    for name in ("file", "allow_pickle", "a/b", "../up", "weight.npy", "größe"):
        setattr(net, name, nn.Parameter(np.random.default_rng(0).standard_normal(3)))
    state = net.state_dict()
    nn.save(net, tmp_path / f"net{suffix}")
    for name in state:
        getattr(net, name).data[...] = 0
    nn.load(net, tmp_path / f"net{suffix}")
    _assert_same_state(net.state_dict(), state)


@each_suffix
def test_a_failed_save_leaves_the_old_file(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"net{suffix}"
    nn.save(nn.Linear(3, 2), path)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        nn.save(nn.Linear(3, 2), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]
    with pytest.raises(FileNotFoundError):
        nn.save(nn.Linear(3, 2), tmp_path / "nowhere" / path.name)


@each_suffix
def test_damaged_files(suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    layer = nn.Linear(30, 20)
    before = layer.state_dict()
    nn.save(nn.Linear(30, 20), path)
    content = path.read_bytes()
    for damaged in (b"", b"not this", content[:50], content[:-50], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"^path: .*net{suffix}.* is not a {suffix} file, or is damaged: "):
            nn.load(layer, path)
        _assert_same_state(layer.state_dict(), before)
    with pytest.raises(FileNotFoundError):
        nn.load(layer, tmp_path / f"other{suffix}")


def test_no_file_runs_code(tmp_path):
    """A pickle in an .npz file, or under its name, is refused unopened."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "gone off"),)

    np.savez(tmp_path / "archive.npz", weight=np.array([Bomb()], object))
    np.save(tmp_path / "array.npy", np.array([Bomb()], object), allow_pickle=True)
    np.save(tmp_path / "numbers.npy", np.ones((2, 3)))
    for name in ("array", "numbers"):
        (tmp_path / f"{name}.npy").rename(tmp_path / f"{name}.npz")
    for name in ("archive", "array", "numbers"):
        with pytest.raises(ValueError, match=r"is not a \.npz file, or is damaged"):
            nn.load(nn.Linear(3, 2), tmp_path / f"{name}.npz")
    assert not (tmp_path / "gone off").exists()


def test_a_dtype_that_numpy_lacks(tmp_path):
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2, 3).to(torch.float8_e4m3fn)}, path)
    with pytest.raises(ValueError, match=r"weight in .* has dtype F8_E4M3, which NumPy does not have"):
        nn.load(nn.Linear(3, 2, bias=False), path)


def test_other_names_are_refused(tmp_path):
    for call in (nn.save, nn.load):
        with pytest.raises(ValueError, match=re.escape("path: expected a name that ends in .npz or .safetensors, got")):
            call(nn.Linear(3, 2), tmp_path / "net.pt")
    assert not os.listdir(tmp_path)


def test_safetensors_is_an_extra(tmp_path):
    """Without the package everything else works, and the error says what to install."""
    code = f"""
import sys
sys.modules["safetensors"] = None
from fastconv import nn
nn.save(nn.Linear(3, 2), {str(tmp_path / "net.npz")!r})
nn.load(nn.Linear(3, 2), {str(tmp_path / "net.npz")!r})
for call in (nn.save, nn.load):
    try:
        call(nn.Linear(3, 2), {str(tmp_path / "net.safetensors")!r})
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    expected = (
        "A .safetensors file needs the package 'safetensors', which is not installed: "
        "pip install 'fastconv[safetensors]'"
    )
    assert done.stdout.splitlines() == [expected] * 2
    assert os.listdir(tmp_path) == ["net.npz"]
