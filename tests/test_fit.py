"""The training loop: what it computes, what it keeps, and that an interrupted training ends as if it had not been."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import fastconv
import numpy as np
import pytest
import torch
import training_script
from fastconv import _files, models, nn, optim, train
from fastconv.train import checkpoint


def _line(seed=0, count=40):
    """A regression problem, and a layer to solve it."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 3))
    y = x @ np.array([[1.0, -2.0, 0.5]]).T + 0.3
    return x, y, nn.Linear(3, 1, dtype=np.float64, rng=np.random.default_rng(1))


# ---- what it computes ----------------------------------------------------------------------------------------------


@pytest.fixture
def one_thread():
    """Both libraries on one thread: so small a network gains nothing from more, and they would wait for each other."""
    before = fastconv.get_num_threads(), torch.get_num_threads()
    fastconv.set_num_threads(1)
    torch.set_num_threads(1)
    yield
    fastconv.set_num_threads(before[0])
    torch.set_num_threads(before[1])


def test_lenet5_has_pytorchs_loss_curve(one_thread):
    """The same first weights and the same batches give the same losses over 200 steps."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 200 * 8)
    images = 0.3 * rng.standard_normal((len(labels), 1, 28, 28), dtype=np.float32)
    images[np.arange(len(labels)), 0, 4 + 2 * labels] += 1
    ours = models.lenet5(rng=rng)
    layers = torch.nn
    theirs = layers.Sequential(
        layers.Conv2d(1, 6, 5, padding=2), layers.ReLU(), layers.MaxPool2d(2), layers.Conv2d(6, 16, 5), layers.ReLU(),
        layers.MaxPool2d(2), layers.Flatten(), layers.Linear(400, 120), layers.ReLU(), layers.Linear(120, 84),
        layers.ReLU(), layers.Linear(84, 10),
    )  # fmt: skip
    with torch.no_grad():
        for parameter, tensor in zip(ours.parameters(), theirs.parameters(), strict=True):
            tensor.copy_(torch.from_numpy(parameter.data))

    losses, loss = [], nn.CrossEntropyLoss()

    def noted(y, target):
        losses.append(loss(y, target))
        return losses[-1]

    recording = type("Recording", (), {"__call__": staticmethod(noted), "backward": staticmethod(loss.backward)})()
    sgd = optim.SGD(ours.parameters(), lr=0.02, momentum=0.9)
    train.fit(ours, images, labels, recording, sgd, epochs=1, batch_size=8, shuffle=False, progress=False)

    rule = torch.optim.SGD(theirs.parameters(), lr=0.02, momentum=0.9)
    expected = []
    for start in range(0, len(labels), 8):
        rule.zero_grad()
        value = torch.nn.functional.cross_entropy(
            theirs(torch.from_numpy(images[start : start + 8])), torch.from_numpy(labels[start : start + 8])
        )
        value.backward()
        rule.step()
        expected.append(value.item())
    assert len(losses) == 200
    np.testing.assert_allclose(losses, expected, atol=1e-4, rtol=0)
    assert np.mean(expected[-20:]) < 0.5 * np.mean(expected[:20]), "it learned"


def test_numbers_of_an_epoch():
    x, y, layer = _line()
    weights, seen = layer.weight.data.copy(), []
    loss, sgd = nn.MSELoss(), optim.SGD(layer.parameters(), lr=0.0)
    history = train.fit(
        layer, x[:30], y[:30], loss, sgd, epochs=2, batch_size=7, validation=(x[30:], y[30:]),
        metrics={"error": lambda outputs, targets: np.abs(outputs - targets).max()}, on_epoch=seen.append,
    )  # fmt: skip
    expected = ((x @ weights.T + layer.bias.data - y) ** 2)[:, 0]
    for number, epoch in enumerate(history, 1):
        assert epoch["epoch"] == number
        assert epoch["loss"] == pytest.approx(expected[:30].mean(), rel=1e-12), "the last, smaller batch counts less"
        assert epoch["val_loss"] == pytest.approx(expected[30:].mean(), rel=1e-12)
        assert epoch["val_error"] == pytest.approx(np.sqrt(expected[30:].max()), rel=1e-12)
        assert epoch["lr"] == 0
        assert epoch["seconds"] > 0
    assert seen == list(history)
    assert history.column("epoch") == [1, 2]
    assert not layer.training


def test_every_epoch_takes_every_sample_once_in_an_order_of_its_own():
    x = np.arange(10.0)
    batches = train.Batches(x, 10 * x, 3, seed=4)
    orders = []
    for epoch in range(3):
        parts = list(batches.epoch(epoch))
        assert [len(part) for part, _ in parts] == [3, 3, 3, 1]
        taken = np.concatenate([part for part, _ in parts])
        np.testing.assert_array_equal(np.concatenate([targets for _, targets in parts]), 10 * taken)
        np.testing.assert_array_equal(np.sort(taken), x)
        orders.append(taken.tolist())
    assert orders[0] != orders[1] != orders[2]
    again = train.Batches(x, x, 3, seed=4)
    assert np.concatenate([part for part, _ in again.epoch(1)]).tolist() == orders[1]
    assert again.order(0).tolist() != train.Batches(x, x, 3, seed=5).order(0).tolist()
    assert np.concatenate([part for part, _ in again.epoch(1, start=2)]).tolist() == orders[1][6:]
    ordered = train.Batches(x, x, 4, shuffle=False)
    assert [part.tolist() for part, _ in ordered.epoch(0)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing_but_who_augments(workers):
    x = np.zeros((20, 4))

    def augment(x, y, rng):
        time.sleep(rng.uniform(0, 0.005))
        return x + rng.standard_normal(x.shape), y

    alone = list(train.Batches(x, x, 3, augment=augment).epoch(2))
    helped = list(train.Batches(x, x, 3, augment=augment, workers=workers).epoch(2))
    for (one, _), (other, _) in zip(alone, helped, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(np.unique([part[0, 0] for part, _ in alone])) == len(alone), "a generator for each batch"


def test_an_error_in_a_worker_arrives():
    x, y, layer = _line()

    def augment(x, y, rng):
        raise ZeroDivisionError("in the thread")

    with pytest.raises(ZeroDivisionError, match="in the thread"):
        train.fit(layer, x, y, nn.MSELoss(), optim.SGD(layer.parameters(), 0.1), augment=augment)


def test_schedules_step_after_epochs_or_batches():
    def rates(each, make):
        x, y, layer = _line(count=40)
        rule = optim.SGD(layer.parameters(), 0.1)
        history = train.fit(
            layer, x, y, nn.MSELoss(), rule, epochs=3, batch_size=10, schedule=make(rule), schedule_each=each
        )
        return history.column("lr")

    assert rates("epoch", lambda rule: optim.ExponentialLR(rule, 0.5)) == pytest.approx([0.1, 0.05, 0.025])
    assert rates("batch", lambda rule: optim.ExponentialLR(rule, 0.5)) == pytest.approx([0.1, 0.1 / 2**4, 0.1 / 2**8])
    # The loss does become smaller, but not by a factor of a thousand.
    plateau = rates("epoch", lambda rule: optim.ReduceLROnPlateau(rule, threshold=0.999, patience=0))
    assert plateau == pytest.approx([0.1, 0.1, 0.01])


# ---- the best epoch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["in memory", "in a file"])
def test_early_stopping_and_the_best_weights(tmp_path, kept):
    """The validation wants the opposite of what is learned: the first epoch is the best."""
    weights = []
    x, y, layer = _line()
    history = train.fit(
        layer, x, y, nn.MSELoss(), optim.SGD(layer.parameters(), 0.05), epochs=50, validation=(x, -y), patience=3,
        restore_best=True, on_epoch=lambda epoch: weights.append(layer.weight.data.copy()),
        run=tmp_path if kept == "in a file" else None,
    )  # fmt: skip
    assert history.best("val_loss") == 0
    assert len(history) == 1 + 3 + 1, "more than three epochs without a better one"
    np.testing.assert_array_equal(layer.weight.data, weights[0])
    assert not np.array_equal(weights[0], weights[-1])


@pytest.mark.parametrize(
    ("values", "monitor", "mode", "min_delta", "best"),
    [
        ([3, 1, 2, 1], "val_loss", None, 0, 1),
        ([3, 1, 2, 4], "val_accuracy", None, 0, 3),
        ([3, 1, 2, 4], "val_accuracy", "min", 0, 1),
        ([3, 2.5, 2, 1.9], "loss", None, 0.6, 2),
        ([float("nan"), 2, float("nan")], "loss", None, 0, 1),
        ([float("nan")], "loss", None, 0, None),
        ([float("inf"), 5], "loss", None, 0, 1),
        ([], "loss", None, 0, None),
    ],
)
def test_which_epoch_is_the_best(values, monitor, mode, min_delta, best):
    assert train.History([{monitor: value} for value in values]).best(monitor, mode, min_delta) == best


# ---- interruptions -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return training_script.run(tmp_path_factory.mktemp("undisturbed"))


def test_a_training_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path, undisturbed):
    """SIGKILL, which no process can prepare for, again and again, while it trains, augments or writes."""
    chance, kills = random.Random(0), 0
    command = [sys.executable, training_script.__file__, str(tmp_path / "run"), "0"]
    for attempt in range(40):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            if attempt < 5:
                for _ in range(chance.randrange(1, 6)):
                    process.stdout.readline()
                time.sleep(chance.uniform(0, 0.01))
                process.send_signal(signal.SIGKILL)
            lines = process.stdout.read().split()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
    assert kills == 5
    assert lines[-1] == undisturbed[2]
    assert len(lines) - 1 < 4 * 6 - 1, "it went on, rather than beginning again"
    leftover = {path.name for path in (tmp_path / "run").iterdir()} - {"last.npz", "best.npz"}
    assert all(name.startswith(".best.npz.") for name in leftover), leftover


@pytest.mark.parametrize("moment", range(1, 24, 3))
def test_a_stop_while_writing_leaves_the_state_before(tmp_path, monkeypatch, undisturbed, moment):
    """At the worst moment: all is written under the other name, and the rename does not come."""
    replace, calls = _files.os.replace, []

    def stop(source, target):
        calls.append(target)
        if len(calls) == moment:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(_files.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        training_script.run(tmp_path)
    monkeypatch.undo()
    assert {path.name for path in tmp_path.iterdir()} <= {"last.npz", "best.npz"}
    assert training_script.run(tmp_path)[2] == undisturbed[2]


def test_a_training_in_parts_ends_as_one(tmp_path, undisturbed):
    for epochs in (1, 2, 4):
        _, history, digest = training_script.run(tmp_path, epochs=epochs, save_seconds=1e9)
        assert len(history) == epochs
    assert digest == undisturbed[2]
    assert training_script.run(tmp_path)[2] == digest, "a finished training is not trained on"
    best = history.best("val_loss")
    other = training_script.build()
    nn.load(other, tmp_path / "best.npz")
    x, y = training_script.images()
    outputs = train.predict(other, x[48:])
    assert nn.CrossEntropyLoss()(outputs, y[48:]) == history[best]["val_loss"]
    assert train.accuracy(outputs, y[48:]) == history[best]["val_accuracy"]


def test_restored_weights_are_the_best_ones_after_a_resume(tmp_path):
    first = training_script.run(tmp_path / "a", restore_best=True)[2]
    training_script.run(tmp_path / "b", epochs=3)
    assert training_script.run(tmp_path / "b", restore_best=True)[2] == first


def test_a_training_is_not_lost_by_accident(tmp_path):
    training_script.run(tmp_path, epochs=1)
    with pytest.raises(FileExistsError, match=r"run: .* holds a training; go on with it by resume=True"):
        training_script.run(tmp_path, resume=False)


def test_another_training_is_refused(tmp_path):
    x, y, layer = _line()

    def fit(**changes):
        rule = changes.pop("rule", optim.SGD)(layer.parameters(), lr=0.1)
        keywords = {"epochs": 1, "batch_size": 8, "run": tmp_path, "resume": True} | changes
        train.fit(layer, keywords.pop("x", x), keywords.pop("y", y), nn.MSELoss(), rule, **keywords)

    fit()
    weights = layer.weight.data.copy()
    for changes, message in (
        ({"batch_size": 4}, r"begun with batch_size=8 \(now 4\)"),
        ({"seed": 1}, r"begun with seed=0 \(now 1\)"),
        ({"x": x[:20], "y": y[:20]}, r"begun with samples=\[40, 3\] \(now \[20, 3\]\)"),
        ({"rule": optim.Adam}, r"begun with optimizer='SGD' \(now 'Adam'\)"),
        ({"shuffle": False}, r"begun with shuffle=True \(now False\)"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(epochs=2, **changes)
        np.testing.assert_array_equal(layer.weight.data, weights)
    layer = nn.Linear(3, 2, dtype=np.float64)
    with pytest.raises(ValueError, match=r"weight has shape \(1, 3\), expected \(2, 3\)"):
        fit()


def test_a_damaged_state_is_refused(tmp_path):
    x, y, layer = _line()
    for content in (b"", b"PK\3\4 and no more", b"\x93NUMPY"):
        (tmp_path / "last.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"is not a \.npz file, or is damaged"):
            train.fit(layer, x, y, nn.MSELoss(), optim.SGD(layer.parameters(), 0.1), run=tmp_path, resume=True)
    np.savez(tmp_path / "last.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="is not the state of a training"):
        train.fit(layer, x, y, nn.MSELoss(), optim.SGD(layer.parameters(), 0.1), run=tmp_path, resume=True)


def test_sixteen_bit_weights_survive(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in (np.float16, ml_dtypes.bfloat16):
        layer = nn.Linear(4, 3, dtype=dtype, rng=np.random.default_rng(0))
        adam = optim.Adam(layer.parameters())
        layer.weight.grad = layer.weight.data
        adam.step()
        checkpoint.write(tmp_path / "state.npz", layer, adam, None, {"settings": {}})
        other = nn.Linear(4, 3, dtype=dtype)
        rule = optim.Adam(other.parameters())
        checkpoint.read(tmp_path / "state.npz", other, rule, None, {})
        np.testing.assert_array_equal(other.weight.data, layer.weight.data)
        np.testing.assert_array_equal(
            rule.state_dict()["state"][0]["exp_avg"], adam.state_dict()["state"][0]["exp_avg"]
        )


# ---- what people see, and bad arguments ----------------------------------------------------------------------------


def test_progress_bar(capsys):
    x, y, layer = _line()

    def fit(progress):
        train.fit(
            layer, x, y, nn.MSELoss(), optim.SGD(layer.parameters(), 0.1), epochs=2, batch_size=8, progress=progress
        )
        return capsys.readouterr().err

    assert fit(None) == "", "there is no terminal"
    assert fit(False) == ""
    text = fit(True)
    assert "epoch 2/2" in text
    assert "/5" in text


def test_without_tqdm(monkeypatch):
    x, y, layer = _line()
    monkeypatch.setitem(sys.modules, "tqdm", None)
    arguments = (layer, x, y, nn.MSELoss(), optim.SGD(layer.parameters(), 0.1))
    train.fit(*arguments, epochs=1)
    with pytest.raises(ImportError, match=r"pip install 'fastconv\[train\]'"):
        train.fit(*arguments, epochs=1, progress=True)


def test_predict_leaves_the_model_as_it_was():
    model, (x, _) = training_script.build(), training_script.images()
    y = model(x[:8])
    outputs = train.predict(model, x, batch_size=7)
    assert model.training
    model.backward(np.ones_like(y))  # the forward before is still the latest
    np.testing.assert_array_equal(outputs, model.eval()(x))
    with pytest.raises(ValueError, match="x: expected at least one sample, got none"):
        train.predict(model, x[:0])


def test_bad_arguments():
    x, y, layer = _line()
    rule, other = (optim.SGD(layer.parameters(), 0.1) for _ in range(2))
    for keywords, message in (
        ({"loss": nn.MSELoss("sum")}, "loss: expected one with reduction='mean', got 'sum'"),
        ({"schedule_each": "step"}, "schedule_each: expected 'epoch' or 'batch', got 'step'"),
        ({"schedule": optim.StepLR(other, 1)}, "schedule: expected one on the optimizer that trains"),
        ({"schedule": optim.ReduceLROnPlateau(rule), "schedule_each": "batch"}, "ReduceLROnPlateau looks at epochs"),
        ({"monitor": "val_loss"}, "monitor: expected one of 'loss', 'lr', 'seconds', got 'val_loss'"),
        ({"mode": "most"}, "mode: expected 'min', 'max' or None, got 'most'"),
        ({"epochs": 0}, "epochs: got 0, expected at least 1"),
        ({"batch_size": 0}, "batch_size: got 0, expected at least 1"),
        ({"patience": -1}, "patience: got -1, expected at least 0"),
        ({"y": y[:3]}, "y: expected a target for each of at least one sample, got 40 and 3"),
        ({"x": x[:0], "y": y[:0]}, "y: expected a target for each of at least one sample, got 0 and 0"),
    ):
        arguments = {"x": x, "y": y, "loss": nn.MSELoss()} | keywords
        with pytest.raises(ValueError, match=message):
            train.fit(layer, optimizer=rule, **arguments)
