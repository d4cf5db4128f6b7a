"""The ops, forward and backward, on arrays.

Arrays are ``(N, C, *spatial)`` (``data_format="channels_first"``, the default) or ``(N, *spatial, C)``
(``"channels_last"``), float32, float64, float16 or bfloat16 (of the package ml_dtypes), of any strides. 16-bit arrays
are computed in float32 and rounded once. Every forward op with a gradient has a ``NAME_backward`` that takes the
output's gradient first.
"""

from fastconv.functional.activation import *  # noqa: F403
from fastconv.functional.adaptive_pooling import *  # noqa: F403
from fastconv.functional.conv import *  # noqa: F403
from fastconv.functional.conv_transpose import *  # noqa: F403
from fastconv.functional.dropout import *  # noqa: F403
from fastconv.functional.linear import *  # noqa: F403
from fastconv.functional.loss import *  # noqa: F403
from fastconv.functional.norm import *  # noqa: F403
from fastconv.functional.pooling import *  # noqa: F403
from fastconv.functional.power_pooling import *  # noqa: F403
from fastconv.functional.sample_norms import *  # noqa: F403
from fastconv.functional.separable_conv import *  # noqa: F403
from fastconv.functional.switch_norm import *  # noqa: F403
from fastconv.functional.unpooling import *  # noqa: F403
