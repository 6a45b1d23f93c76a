"""One picture after the other inside an ONNX file: faster on CPUs, where a batch falls out of the cache.

A runtime computes a batch layer by layer, so the maps of sixteen pictures travel through memory between
any two layers. A `Scan` over the batch computes one picture to its end before the next. On a GPU, which
wants the whole batch at once, it is the wrong choice.
"""

from __future__ import annotations

from typing import Any

from keras_effnet.errors import require

_PICTURE, _RESULT, _AXIS = "picture", "picture_probabilities", "picture_axis"


def each_picture(proto: Any) -> Any:
    """A model with one input and one output, both batched, as a loop over its batch.

    Args:
        proto: `onnx.ModelProto`; input `[N, ...]`, output `[N, classes]`.

    Returns:
        Another one with the same input and output. Weights lie inside the loop, where runtimes that
        rearrange them look for them.
    """
    onnx = require("onnx", "onnx")
    helper, outer = onnx.helper, proto.graph
    (given,), (taken,) = outer.input, outer.output
    body = onnx.GraphProto()
    body.name = "one_picture"
    body.initializer.extend(outer.initializer)
    body.initializer.append(helper.make_tensor(_AXIS, onnx.TensorProto.INT64, [1], [0]))
    # the ends keep their names, now those of a batch of one
    body.node.append(helper.make_node("Unsqueeze", [_PICTURE, _AXIS], [given.name]))
    body.node.extend(outer.node)
    body.node.append(helper.make_node("Squeeze", [taken.name, _AXIS], [_RESULT]))
    for values, name, end in ((body.input, _PICTURE, given), (body.output, _RESULT, taken)):
        kind = end.type.tensor_type.elem_type
        values.append(helper.make_tensor_value_info(name, kind, _shape(end)[1:]))
    _rename(body, {given.name: f"{given.name}/one", taken.name: f"{taken.name}/one"})
    loop = helper.make_node("Scan", [given.name], [taken.name], name="pictures", num_scan_inputs=1, body=body)
    graph = helper.make_graph([loop], outer.name, [given], [taken])
    return helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)


def _shape(value: Any) -> list[int | str | None]:
    return [dim.dim_value or dim.dim_param or None for dim in value.type.tensor_type.shape.dim]


def _rename(body: Any, names: dict[str, str]) -> None:
    """Names of an inner graph must not hide those of the outer one."""
    for node in body.node:
        for values in (node.input, node.output):
            for index, name in enumerate(values):
                values[index] = names.get(name, name)
