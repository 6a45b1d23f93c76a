"""tf2onnx, driven for our files: the passes that such networks need, without its copies, in one line when it fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_effnet.errors import require
from keras_effnet.system.quiet import quiet_native

from .failures import converting, unknown_operators

PASSES = (
    "optimize_transpose",
    "fold_constants",
    "global_pool_optimizer",
    "remove_identity",
    "remove_back_to_back",
)
CATCH_ERRORS = "TF2ONNX_CATCH_ERRORS"  # read by tf2onnx from the environment


def converted(
    model: Any,
    inputs: Mapping[str, Sequence[int]],
    *,
    name: str,
    opset: int,
    nchw_inputs: Sequence[str] = (),
) -> Any:
    """A functional Keras model as an `onnx.ModelProto` with a free batch, as tf2onnx leaves it.

    Args:
        model: the model.
        inputs: shape of one picture's input, by name, in the order of `model.inputs`.
        name: what an error calls it.
        opset: of the operators.
        nchw_inputs: the names of those that are to have their channels first.

    Raises:
        ExportError: the converter failed.
    """
    import tensorflow as tf

    tf2onnx = require("tf2onnx", "onnx")
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with quiet_native(), converting(name, "ONNX"), _without_copies():
        proto, _ = tf2onnx.convert.from_keras(
            model,
            [tf.TensorSpec((None, *shape), tf.float32, name=each) for each, shape in inputs.items()],
            opset=opset,
            inputs_as_nchw=[*nchw_inputs] or None,
            optimizers=_passes(),
            custom_op_handlers={"Expm1": (_expm1, [])},
        )
        if unknown := _unknown_operators(proto):  # tf2onnx leaves them as they are, under TensorFlow's names
            raise unknown_operators(name, "ONNX", unknown)
    return proto


def _expm1(context: Any, node: Any, name: str, _: Any) -> None:
    """Write TensorFlow's Expm1, of `celu` say, which tf2onnx does not know, as `Exp(x) - 1`."""
    one = context.make_const(f"{name}/one", np.array(1, np.float32)).output[0]
    power = context.make_node("Exp", [node.input[0]])
    node.type = "Sub"
    context.replace_inputs(node, [power.output[0], one])


def _unknown_operators(proto: Any) -> set[str]:
    known = require("onnx", "onnx").defs.has
    return {node.op_type for node in proto.graph.node if not known(node.op_type, node.domain)}


def _passes() -> dict[str, Any]:
    """The passes of tf2onnx that such networks need.

    Each pass keeps a copy of all weights until the end, and tf2onnx repeats them until none finds
    anything to do: with all twelve of them B7 needs 13 GB, with these 5.
    """
    known = require("tf2onnx.optimizer", "onnx")._get_optimizers()
    return {name: known[name] for name in PASSES}


@contextmanager
def _without_copies() -> Iterator[None]:
    """Keep tf2onnx from copying the graph before each pass; a pass that fails is an error here."""
    before = os.environ.get(CATCH_ERRORS)
    os.environ[CATCH_ERRORS] = "FALSE"
    try:
        yield
    finally:
        if before is None:
            del os.environ[CATCH_ERRORS]
        else:
            os.environ[CATCH_ERRORS] = before
