"""The parts of a network that integers are not known for, inside an ONNX file of integers: tf2onnx writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_effnet.errors import require

from ..onnx_file import converted
from .graph import Graph, shapes_of
from .steps import Island

SHADOW = "inside"  # what names of an island's own tensors begin with, behind the step's


class OnnxIslands:
    """Writes islands into one file.

    Maps are `[N, C, H, W]` there and features maps of one pixel `[N, C, 1, 1]`; everything else, a row of
    tokens say, is as in Keras.

    Args:
        graph: the network.
        picture: (height, width, channels) of its input.
        opset: of the file.
    """

    def __init__(self, graph: Graph, picture: Sequence[int], opset: int) -> None:
        self._shapes = shapes_of(graph, tuple(picture)) if graph.islands else {}
        self._opset = opset

    def write(self, file: Any, step: Island, tensors: Sequence[str]) -> str:
        """Write the nodes of an island.

        Args:
            file: takes nodes and initializers, see `to_onnx`.
            step: the island.
            tensors: what it reads.

        Returns:
            The tensor that it makes.

        Raises:
            ExportError: ONNX has no operator for a part of it.
        """
        proto, given, (made,) = self._converted(step)
        for name, tensor, source in zip(given, tensors, step.inputs, strict=True):
            file.node(*_entrance(file, name, tensor, len(self._shapes[source])))
        file.nodes.extend(proto.graph.node)
        file.initializers.extend(proto.graph.initializer)
        if len(self._shapes[step.name]) != 2:
            return made
        pixel = file.constant(f"{step.name}/pixel", _int64(0, -1, 1, 1))
        return str(file.node("Reshape", [made, pixel], f"{step.name}/float"))

    def _converted(self, step: Island) -> tuple[Any, list[str], list[str]]:
        """The island alone as a file, its names its own; the names of its inputs and output."""
        import keras

        inputs = {f"in{place}": self._shapes[name][1:] for place, name in enumerate(step.inputs)}
        images = [keras.Input(shape, name=name) for name, shape in inputs.items()]
        output = step.keras(keras, "island", *images)
        if len(output.shape) == 4:  # here, where tf2onnx can make it one with what is inside
            output = keras.ops.transpose(output, (0, 3, 1, 2))
        model = keras.Model(images, output)
        proto = converted(
            model,
            inputs,
            name=step.name,
            opset=self._opset,
            nchw_inputs=[name for name, shape in inputs.items() if len(shape) == 3],
        )
        proto = require("onnx", "onnx").compose.add_prefix(proto, f"{step.name}/{SHADOW}/")
        return proto, [each.name for each in proto.graph.input], [each.name for each in proto.graph.output]


def _entrance(file: Any, name: str, tensor: str, rank: int) -> tuple[str, list[str], str]:
    """The node that gives an island its input: features lose their pixel."""
    if rank != 2:
        return "Identity", [tensor], name
    return "Reshape", [tensor, file.constant(f"{name}/row", _int64(0, -1))], name


def _int64(*values: int) -> Any:
    return np.array(values, np.int64)
