"""Where the time of an ONNX or TFLite file goes, operator by operator, and what limits each.

    python benchmarks/operators.py out/b0_float32.onnx --batch 1 16
    python benchmarks/operators.py out/b0_float32.tflite
    python benchmarks/operators.py out/b0_float32.onnx --batch 16 --layers     # every convolution

One thread, the median of the rounds for each node. ONNX Runtime tells the times of its nodes; LiteRT's Python does not,
so each operator of a TFLite file becomes a file of its own, which loses what the delegate gains by joining two.
Convolutions are told by what they are (a kernel for each channel; 1×1 and the like; the two of squeeze-and-excite, whose
maps have one pixel) with the multiply-adds that they do in a second; the others with the bytes that they read and write
in one, without weights. A `Scan` (`batching="each"`) contains the time of what is inside it.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CONVOLUTIONS = ("Conv", "FusedConv")


@dataclass(frozen=True)
class Node:
    """One node of the optimized graph: seconds for a picture, its arithmetic and what it moves."""

    kind: str
    what: str
    seconds: float
    macs: int
    moved: int


def onnx_nodes(path: Path, batch: int, rounds: int) -> list[Node]:
    """The nodes of a file as ONNX Runtime joins them, each with the median of its times."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        entry = session.get_inputs()[0]
        shape = [batch if isinstance(side, str) else side for side in entry.shape]
        pixels = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
        for _ in range(rounds + 1):  # the first allocates
            session.run(None, {entry.name: pixels})
        events = json.loads(Path(session.end_profiling()).read_text())
    seconds: dict[str, list[float]] = defaultdict(list)
    told: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seconds[event["name"]].append(event["dur"] * 1e-6)
            told[event["name"]] = event["args"]
    # inside a Scan a node is run once for each picture
    per_picture = {
        name: np.median(times) * max(1, len(times) // (rounds + 1)) for name, times in seconds.items()
    }
    return [_node(told[name], float(value) / batch) for name, value in per_picture.items()]


def _node(told: dict[str, Any], seconds: float) -> Node:
    given, made = (
        [next(iter(each.values())) for each in told.get(f"{end}_type_shape", [])]
        for end in ("input", "output")
    )
    operator = told["op_name"]
    if operator not in CONVOLUTIONS:
        pictures = made[0][0] if made and made[0] else 1  # one inside a Scan
        return Node(operator, "", seconds, 0, 4 * sum(map(_size, given[:2] + made)) // pictures)
    kernel, result = given[1], made[0]
    macs = _size(result[1:]) * _size(kernel[1:])
    depthwise = kernel[1] == 1 and kernel[0] == result[1] and kernel[2] > 1
    return _convolution(operator, f"{given[0]} * {kernel}", seconds, macs, depthwise, result[2:])


def _convolution(
    operator: str, what: str, seconds: float, macs: int, depthwise: bool, sides: list[int]
) -> Node:
    kind = "depthwise" if depthwise else "squeeze-and-excite" if sides == [1, 1] else "1×1 and stem"
    return Node(f"{operator}, {kind}", what, seconds, macs, 0)


def tflite_nodes(path: Path, rounds: int) -> list[Node]:
    """The operators of a file, each timed alone."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    from keras_effnet.export.tflite_file import pack, unpack
    from keras_effnet.system.stopwatch import medians

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    widths = {schema.TensorType.INT8: 1, schema.TensorType.UINT8: 1}  # bytes of a value
    model = unpack(path.read_bytes())
    (graph,) = model.subgraphs
    found = []
    for operator in graph.operators:
        interpreter = Interpreter(model_content=pack(_alone(model, operator)), num_threads=1)
        interpreter.allocate_tensors()
        (seconds,) = medians([interpreter.invoke], rounds=rounds, warm_up=1)
        code = model.operatorCodes[operator.opcodeIndex]
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        touched = [graph.tensors[place] for place in (*operator.inputs, *operator.outputs) if place >= 0]
        shapes = [list(tensor.shape) for tensor in touched]
        result = shapes[-1]
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            depthwise, kernel = name != "CONV_2D", shapes[1]
            macs = _size(result) * _size(kernel[1:3]) * (1 if depthwise else kernel[3])
            found.append(
                _convolution("convolution", f"{shapes[0]} * {kernel}", seconds, macs, depthwise, result[1:3])
            )
        else:
            moved = sum(widths.get(tensor.type, 4) * _size(tensor.shape) for tensor in touched)
            found.append(Node(name, "", seconds, 0, moved))
    return found


def _alone(model: Any, operator: Any) -> Any:
    """A file of one operator; what it computed from is its input."""
    (graph,) = model.subgraphs
    places = sorted({int(place) for place in (*operator.inputs, *operator.outputs) if place >= 0})
    alone, only = copy.copy(model), copy.copy(graph)
    moved = {place: new for new, place in enumerate(places)}
    only.tensors, alone.buffers = [], [model.buffers[0]]
    for place in places:
        tensor = copy.copy(graph.tensors[place])
        alone.buffers.append(model.buffers[tensor.buffer])
        tensor.buffer = len(alone.buffers) - 1
        only.tensors.append(tensor)
    only.operators = [copy.copy(operator)]
    for end in ("inputs", "outputs"):
        here = [moved.get(int(place), -1) for place in getattr(operator, end)]
        setattr(only.operators[0], end, here)
        setattr(only, end, [place for place in here if end == "outputs" or not _constant(alone, only, place)])
    alone.subgraphs, alone.metadata, alone.metadataBuffer, alone.signatureDefs = [only], None, None, None
    return alone


def _constant(model: Any, graph: Any, place: int) -> bool:
    data = model.buffers[graph.tensors[place].buffer].data if place >= 0 else ()
    return place < 0 or (data is not None and len(data) > 0)


def _size(shape: Any) -> int:
    return int(np.prod(shape, dtype=np.int64))


def show(found: list[Node], layers: bool) -> None:
    """A line for each kind, the longest first."""
    total = sum(node.seconds for node in found if node.kind != "Scan")
    kinds: dict[str, list[Node]] = defaultdict(list)
    for node in found:
        kinds[node.kind].append(node)
    print(
        "| operator | nodes | ms for a picture | share | G multiply-adds/s | GB/s |\n|---|---|---|---|---|---|"
    )
    for kind, own in sorted(kinds.items(), key=lambda pair: -sum(node.seconds for node in pair[1])):
        seconds = sum(node.seconds for node in own)
        macs, moved = (sum(getattr(node, name) for node in own) / seconds / 1e9 for name in ("macs", "moved"))
        print(
            f"| {kind} | {len(own)} | {seconds * 1e3:.2f} | {seconds / total:.3f} | "
            f"{f'{macs:.1f}' if macs else '–'} | {f'{moved:.1f}' if moved else '–'} |"
        )
    print(f"| all | {len(found)} | {total * 1e3:.2f} | 1 | | |")
    if layers:
        for node in found:
            if node.macs:
                rate = node.macs / node.seconds / 1e9
                print(f"{node.what}: {node.seconds * 1e6:.0f} µs, {rate:.1f} G multiply-adds/s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layers", action="store_true", help="every convolution too")
    arguments = parser.parse_args()
    path, rounds = arguments.file, arguments.rounds
    tflite = path.suffix == ".tflite"  # whose batch is one
    for batch in [1] if tflite else arguments.batch:
        print(f"\n{path.name}, batch {batch}\n")
        show(tflite_nodes(path, rounds) if tflite else onnx_nodes(path, batch, rounds), arguments.layers)


if __name__ == "__main__":
    main()
