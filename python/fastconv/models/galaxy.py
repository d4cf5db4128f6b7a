"""A network that answers the Galaxy Zoo's questions about a picture of a galaxy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import functional as F
from .. import nn
from .._check import integer
from ._options import Options

__all__ = ["GALAXY_QUESTIONS", "CenterCrop", "DecisionTree", "Question", "galaxy_net"]


class Question(NamedTuple):
    """A question of a decision tree."""

    answers: int
    """How many answers it has."""
    after: int | None
    """Index, among all answers, of the one whose probability its answers share; ``None`` if it is always asked."""


GALAXY_QUESTIONS = (
    Question(3, None),  # 1 smooth, with features or a disk, or a star or artifact
    Question(2, 1),  # 2 a disk seen edge-on, or not
    Question(2, 4),  # 3 a bar, or none
    Question(2, 4),  # 4 spiral arms, or none
    Question(4, 4),  # 5 how prominent the bulge is
    Question(2, None),  # 6 anything odd, or nothing
    Question(3, 0),  # 7 how round
    Question(7, 13),  # 8 what is odd
    Question(3, 3),  # 9 the bulge's shape, seen edge-on
    Question(3, 7),  # 10 how tightly the arms are wound
    Question(6, 7),  # 11 how many arms
)
"""The 11 questions and 37 answers of Galaxy Zoo 2 (Willett and others, 2013), as the Galaxy Zoo challenge weighs
them: the answers to a question sum to the probability of the answer that leads to it. All paths from 2.2 meet again at
question 5, and question 6 is asked of everything."""


class DecisionTree(nn.Module):
    """Turn logits into probabilities that respect a decision tree.

    The logits of a question's answers become probabilities by a softmax, which are then multiplied by the probability
    of the answer that leads to the question. The squared error of the result is what the Galaxy Zoo challenge asks for
    (Dieleman, Willett and Dambre, 2015).

    Parameters
    ----------
    questions : sequence of Question
        Parents before children.

    Raises
    ------
    ValueError
        If a question comes after an answer that is not one of an earlier question.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import DecisionTree, Question
    >>> tree = DecisionTree([Question(2, None), Question(2, 0)])
    >>> tree(np.zeros((1, 4)))
    array([[0.5 , 0.5 , 0.25, 0.25]])
    """

    def __init__(self, questions: Sequence[Question] = GALAXY_QUESTIONS) -> None:
        self.questions = tuple(Question(*question) for question in questions)
        self.num_answers = 0
        for answers, after in self.questions:
            integer(answers, "questions", 1)
            if after is not None and not 0 <= after < self.num_answers:
                raise ValueError(
                    f"questions: one comes after answer {after}, expected one of the {self.num_answers} before it"
                )
            self.num_answers += answers

    def _slices(self) -> list[tuple[slice, int | None]]:
        """Return where each question's answers are, and the answer that leads to it."""
        ends = np.cumsum([question.answers for question in self.questions]).tolist()
        return [(slice(end - answers, end), after) for end, (answers, after) in zip(ends, self.questions, strict=True)]

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return ``(N, answers)`` probabilities of ``(N, answers)`` logits."""
        if x.ndim != 2 or x.shape[1] != self.num_answers:
            raise ValueError(f"x: expected shape (N, {self.num_answers}), got {x.shape}")
        shares, y = np.empty_like(x), np.empty_like(x)
        for answers, after in self._slices():
            shares[:, answers] = F.softmax(np.ascontiguousarray(x[:, answers]), 1)
            y[:, answers] = shares[:, answers] * (1 if after is None else y[:, after, None])
        self._remember(shares, y)
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the logits' gradient."""
        shares, y = self._recall()
        grad = np.array(grad_output)
        result = np.empty_like(y)
        for answers, after in reversed(self._slices()):  # children before parents: they add to their parent's gradient
            own, share = grad[:, answers], shares[:, answers]
            if after is not None:
                grad[:, after] += (own * share).sum(1)
                own = own * y[:, after, None]
            result[:, answers] = F.softmax_backward(np.ascontiguousarray(own), np.ascontiguousarray(share), 1)
        return result  # type: ignore[no-any-return]

    def _options(self) -> str:
        return f"{len(self.questions)} questions, {self.num_answers} answers"


class CenterCrop(nn.Module):
    """Keep the middle of each image.

    Parameters
    ----------
    size : int
        Height and width of what is kept.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.
    """

    def __init__(self, size: int, *, data_format: str = "channels_first") -> None:
        self.size = integer(size, "size", 1)
        self.data_format = data_format

    def _window(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        first = 2 if self.data_format == "channels_first" else 1
        window = [slice(None)] * 4
        for axis in (first, first + 1):
            start = (shape[axis] - self.size) // 2
            if start < 0:
                raise ValueError(f"x: expected images of at least {self.size} x {self.size}, got shape {shape}")
            window[axis] = slice(start, start + self.size)
        return tuple(window)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Crop."""
        if x.ndim != 4:
            raise ValueError(f"x: expected a batch of images, got shape {x.shape}")
        self._remember(x.shape)
        return x[self._window(x.shape)]

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the gradient in the input's shape: zero in what was cut off."""
        (shape,) = self._recall()
        grad = np.zeros(shape, grad_output.dtype)
        grad[self._window(shape)] = grad_output
        return grad

    def _options(self) -> str:
        return f"{self.size}"


_CROP, _REDUCTION = 207, 3


def galaxy_net(
    image_size: int = 424,
    in_channels: int = 3,
    dropout: float = 0.5,
    questions: Sequence[Question] = GALAXY_QUESTIONS,
    *,
    data_format: str = "channels_first",
    dtype: DTypeLike = np.float32,
    rng: np.random.Generator | None = None,
) -> nn.Sequential:
    """Return a regression network for the shares of volunteers who gave each answer about a galaxy.

    The sizes follow Dieleman, Willett and Dambre (2015), who won the Galaxy Zoo challenge: of 424 x 424 images the
    middle 207 x 207 are kept and reduced to 69 x 69; four convolutions and three pools; fully connected layers with
    dropout; and a `DecisionTree`. Theirs sees each image from 16 sides at once, this one from one: turn the images at
    random while training, and average over their eight symmetries afterwards.

    Parameters
    ----------
    image_size : {424, 69}
        424: whole images, from which the network cuts and reduces. 69: images for which that has been done before,
        which saves the time; the weights are the same.
    in_channels : int
        Channels of the images.
    dropout : float
        Probability of zero before the two fully connected layers.
    questions : sequence of Question
        The decision tree; the 37 answers of Galaxy Zoo 2 unless given.
    data_format, dtype, rng
        As for `fastconv.nn.Conv2d`.

    Returns
    -------
    fastconv.nn.Sequential
        Maps ``(N, in_channels, image_size, image_size)``, values between 0 and 1, to probabilities ``(N, 37)``.

    Raises
    ------
    ValueError
        If the image size is neither of the two.
    """
    if image_size not in (424, _CROP // _REDUCTION):
        raise ValueError(f"image_size: expected 424 or {_CROP // _REDUCTION}, got {image_size!r}")
    options = Options(data_format, dtype, rng)
    weighted, layout = options.weighted, options.layout
    tree = DecisionTree(questions)
    layers: dict[str, nn.Module] = {}
    if image_size == 424:
        layers = {"crop": CenterCrop(_CROP, **layout), "reduce": nn.AvgPool2d(_REDUCTION, **layout)}
    sizes = ((in_channels, 32, 6, True), (32, 64, 5, True), (64, 128, 3, False), (128, 128, 3, True))
    for i, (channels, out, kernel, pooled) in enumerate(sizes, 1):
        layers[f"conv{i}"] = nn.Conv2d(channels, out, kernel, **weighted)
        layers[f"relu{i}"] = nn.ReLU(**layout)
        if pooled:
            layers[f"pool{i}"] = nn.MaxPool2d(2, **layout)
    layers |= {
        "flatten": nn.Flatten(**layout),
        "dropout1": nn.Dropout(dropout, **options.dropping),
        "fc1": nn.Linear(128 * 5 * 5, 512, **weighted),
        "relu5": nn.ReLU(**layout),
        "dropout2": nn.Dropout(dropout, **options.dropping),
        "fc2": nn.Linear(512, tree.num_answers, **weighted),
        "tree": tree,
    }
    return nn.Sequential(layers)
