"""The parts of a network that integers are not known for, inside an ONNX file of integers: tf2onnx writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_effnet.errors import require

from ..onnx_file import converted
from .ranges import Array
from .steps import Island

INSIDE = "inside"  # what names of an island's own tensors begin with, behind the step's


def write_island(file: Any, step: Island, tensors: Sequence[str], opset: int) -> str:
    """Write the nodes of an island.

    Maps are `[N, C, H, W]` in the file and features maps of one pixel `[N, C, 1, 1]`; everything else, a row of
    tokens say, is as in Keras.

    Args:
        file: takes nodes and initializers, see `to_onnx`.
        step: the island.
        tensors: what it reads.
        opset: of the file.

    Returns:
        The tensor that it makes.

    Raises:
        ExportError: ONNX has no operator for a part of it.
    """
    onnx = require("onnx", "onnx")
    proto = onnx.compose.add_prefix(_alone(step, file.shapes, opset), f"{step.name}/{INSIDE}/")
    for given, tensor, source in zip(proto.graph.input, tensors, step.inputs, strict=True):
        if len(file.shapes[source]) == 2:  # features lose their pixel
            row = file.constant(f"{given.name}/row", _whole(0, -1))
            file.node("Reshape", [tensor, row], given.name)
        else:
            file.node("Identity", [tensor], given.name)
    file.nodes.extend(proto.graph.node)
    file.initializers.extend(proto.graph.initializer)
    made = str(proto.graph.output[0].name)
    if len(file.shapes[step.name]) != 2:
        return made
    pixel = file.constant(f"{step.name}/pixel", _whole(0, -1, 1, 1))
    return str(file.node("Reshape", [made, pixel], f"{step.name}/float"))


def _alone(step: Island, shapes: Mapping[str, tuple[int, ...]], opset: int) -> Any:
    """The island as a file of its own, its maps with their channels first."""
    import keras

    inputs = {f"in{place}": shapes[name][1:] for place, name in enumerate(step.inputs)}
    images = [keras.Input(shape, name=name) for name, shape in inputs.items()]
    output = step.keras(keras, "island", *images)
    if len(output.shape) == 4:  # here, where tf2onnx can make it one with what is inside
        output = keras.ops.transpose(output, (0, 3, 1, 2))
    maps = [name for name, shape in inputs.items() if len(shape) == 3]
    return converted(keras.Model(images, output), inputs, name=step.name, opset=opset, nchw_inputs=maps)


def _whole(*values: int) -> Array:
    return np.array(values, np.int64)
