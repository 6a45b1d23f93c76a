"""What is done to every ONNX file before it is written: its sizes stated, its ends named, its version of ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_effnet.errors import InvalidInputError, require

from .model_facts import INPUT_NAME, ModelFacts
from .options import OPSET, Options
from .outputs import tensors_of


def finished(proto: Any, facts: ModelFacts, options: Options) -> Any:
    """The file as it was asked for.

    Args:
        proto: `onnx.ModelProto` in `OPSET` or an older version, with the usual names.
        facts: of the model.
        options: those that every ONNX file follows.

    Raises:
        InvalidInputError: a name that a tensor inside has already.
    """
    _state_widths(proto, facts)
    if options.output_name is not None and len(facts.outputs) > 1:
        raise InvalidInputError(
            f"Expected output_name with a model of one output. Received: outputs {', '.join(facts.output_names)}. "
            "Name them in the model: keras.Model(inputs, {name: tensor, …})."
        )
    _rename_ends(proto, {INPUT_NAME: options.input_name, facts.output_names[0]: options.output_name})
    return _in_opset(proto, options.operators)


def _state_widths(proto: Any, facts: ModelFacts) -> None:
    """The sizes of the outputs, all but that of the batch, which converters leave open."""
    if len(facts.outputs) > 1:
        shapes = [tensor.shape for tensor in tensors_of(facts.model)]
    else:  # also of a model that leaves its size open
        found = facts.model.compute_output_shape((1, *facts.shape))
        shapes = [*found.values()] if isinstance(found, Mapping) else [found]
        shapes = [*shapes[0]] if isinstance(shapes[0][-1], tuple | list) else shapes
    for output, shape in zip(proto.graph.output, shapes, strict=True):
        for dim, size in zip(output.type.tensor_type.shape.dim[1:], shape[1:], strict=True):
            if size is not None:
                dim.dim_value = size


def _rename_ends(proto: Any, wanted: dict[str, str | None]) -> None:
    """Other names for the ends of a graph.

    Raises:
        InvalidInputError: a name that a tensor inside has already.
    """
    graph = proto.graph
    new = {old: name for old, name in wanted.items() if name is not None and name != old}
    inside = {name for node in graph.node for name in (*node.input, *node.output)} - set(wanted)
    if taken := sorted(inside.intersection(new.values())):
        raise InvalidInputError(
            f"Expected a name that nothing in the file has yet. Received: {taken[0]!r}, a tensor inside. "
            "Pass another input_name or output_name."
        )
    rename_tensors(graph, new)
    for value in (*graph.input, *graph.output):
        value.name = new.get(value.name, value.name)


def rename_tensors(graph: Any, names: dict[str, str]) -> None:
    """Other names for some tensors, wherever nodes read or make them."""
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]


def _in_opset(proto: Any, opset: int) -> Any:
    """The same graph in this version of the operators, and nothing said of operators that it has not."""
    onnx = require("onnx", "onnx")
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", min(opset, OPSET)))
    if opset > OPSET:
        proto = onnx.version_converter.convert_version(proto, opset)
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import)
    return proto
