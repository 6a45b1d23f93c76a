"""What a converter says when it fails, in one line: tracebacks and compilers' notes are for other people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from keras_effnet.errors import EffNetError, ExportError

_COLOURS = re.compile(r"\x1b\[[\d;]*m")
# of Keras, also in the middle of a traceback that TensorFlow prints into its message
_CALL = re.compile(r"Exception encountered when calling (?P<layer>[^\s()]+)\(\)\.\s+(?P<said>[^\n]+)")
_RAISED = re.compile(r"^\s*(?P<said>[A-Za-z]\w*(?:Error|Exception): .+)$", re.MULTILINE)
_BRANCH = "as a Python `bool`"  # of TensorFlow, followed by half a page on AutoGraph
# of TensorFlow's compiler: 'tf.Complex' op is neither a custom op nor a flex op
_OPERATOR = re.compile(r"'tf\.(\w+)' op is neither")


@contextmanager
def converting(name: str, format_: str) -> Iterator[None]:
    """Within the block whatever a converter raises becomes an error of this package, in one line.

    Raises:
        ExportError: the converter failed. Errors of this package and of the system go through.
    """
    try:
        yield
    except (EffNetError, OSError):
        raise
    except Exception as error:  # every converter has classes of its own
        text = _COLOURS.sub("", str(error))
        if operators := set(_OPERATOR.findall(text)):
            raise unknown_operators(name, format_, operators) from error
        calls = list(_CALL.finditer(text))
        if calls:
            layer, said = calls[-1]["layer"].removesuffix(".call"), calls[-1]["said"]
            if _BRANCH in said:
                raise ExportError(
                    f"Expected {name!r} to convert to {format_}. Its layer {layer} branches in Python (if, while) on "
                    "what a tensor holds, which no file can. Use keras.ops.where, keras.ops.cond or "
                    "keras.ops.while_loop there."
                ) from error
            raise ExportError(
                f"Expected {name!r} to convert to {format_}. Its layer {layer} failed: {said.strip().rstrip('.')}. "
                "Mend its call, which has to work in a TensorFlow graph with an open batch."
            ) from error
        raised = _RAISED.findall(text)
        said = raised[-1] if raised else f"{type(error).__name__}: {next(iter(text.splitlines()), 'nothing')}"
        raise ExportError(
            f"Expected {name!r} to convert to {format_}. The converter said: {said.strip().rstrip('.')}. "
            "Build the model from Keras' own layers."
        ) from error


def unknown_operators(name: str, format_: str, operators: Iterable[str]) -> ExportError:
    """The error for a model that computes with what a format does not have."""
    return ExportError(
        f"Expected {name!r} to convert to {format_}. Received: {', '.join(sorted(operators))}, for which "
        f"{format_} has no operator. Build the model without, or export it to saved_model, which has them all."
    )
