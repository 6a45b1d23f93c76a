"""ONNX files that take the bytes of a JPEG or PNG: decoding, crop and resize in front of the network.

The operators are ONNX' own, and one of `onnxruntime-extensions`, which decodes. It can be fed with pictures that are
whole and nothing else: at other bytes it ends the process, waits for ever (microsoft/onnxruntime-extensions, issue
1094), or crashes. So `checked` looks at them before the file here does; other programs must do so themselves.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, require
from keras_effnet.pictures.decoding import (
    Source,
    UnreadablePictureError,
    check_header,
    content_of,
    describe,
    turn_of,
)
from keras_effnet.pictures.framing import Framing

from .model_facts import ModelFacts
from .options import Options

EXTRA = "onnx-jpeg"
MODULE = "onnxruntime_extensions"
DOMAIN = "com.microsoft.extensions"
READER_INPUT = "image_bytes"  # as the SavedModel's `serve_bytes` calls it
SIDE_KEY = "image_size"  # of the square inside, which the input does not show
MODES = {"bicubic": "cubic", "bilinear": "linear"}  # the resizing operator's names
KINDS = ("JPEG", "PNG")
_STEPS = f"{MODULE}.tools.pre_post_processing"
_ADVICE = "Save it again as a JPEG or PNG of RGB pixels."

# The central crop, at sub-pixel precision: whole pixels around it are cut out, and the resize samples only inside. Where
# that enlarges the picture, it would look beyond their edge, which one pixel more at each side prevents. The kernels are
# Pillow's.
_SQUARE = """
square (uint8[height, width, channels] {given}) => ({kind}[{size}, {size}, 3] {made}) {{
    sides_axes = Constant <value = int64[2] {{0, 1}}> ()
    batch_axis = Constant <value = int64[1] {{0}}> ()
    sizes = Constant <value = int64[4] {{1, 3, {size}, {size}}}> ()
    zeros = Constant <value = float[2] {{0, 0}}> ()
    ones = Constant <value = float[2] {{1, 1}}> ()
    one = Constant <value = float {{1}}> ()
    half = Constant <value = float {{0.5}}> ()
    kept = Constant <value = float {{{kept}}}> ()
    count = Constant <value = float {{{size}}}> ()
    shape = Shape <start = 0, end = 2> ({given})
    sides = Cast <to = 1> (shape)
    shorter = ReduceMin <keepdims = 0> (sides)
    side = Mul (shorter, kept)
    step = Div (side, count)
    spare = Sub (sides, side)
    begin = Mul (spare, half)
    end = Add (begin, side)
    floor = Floor (begin)
    ceiling = Ceil (end)
    from = Cast <to = 7> (floor)
    to = Cast <to = 7> (ceiling)
    part = Slice ({given}, from, to, sides_axes)
    enlarges = Less (step, one)
    edge = Cast <to = 1> (enlarges)
    edge_whole = Cast <to = 7> (enlarges)
    edge_row = Unsqueeze (edge_whole, batch_axis)
    edges = Concat <axis = 0> (edge_row, edge_row, edge_row, edge_row)
    padded = Pad <mode = "edge"> (part, edges, , sides_axes)
    half_step = Mul (step, half)
    inside = Sub (begin, floor)
    center = Add (inside, half_step)
    corner = Sub (center, half)
    first = Add (corner, edge)
    way = Sub (side, step)
    last = Add (first, way)
    length = Sub (ceiling, floor)
    twice = Add (edge, edge)
    whole = Add (length, twice)
    reach = Sub (whole, one)
    low = Div (first, reach)
    high = Div (last, reach)
    roi = Concat <axis = 0> (zeros, low, ones, high)
    planes = Transpose <perm = [2, 0, 1]> (padded)
    batch = Unsqueeze (planes, batch_axis)
    resized = Resize <mode = "{mode}", antialias = 1, cubic_coeff_a = -0.5,
        coordinate_transformation_mode = "tf_crop_and_resize"> (batch, roi, , sizes)
    alone = Squeeze (resized, batch_axis)
    pixels = Transpose <perm = [1, 2, 0]> (alone)
    {made} = Cast <to = {type}> (pixels)
}}
"""


def check_readable_for(facts: ModelFacts) -> None:
    """Make sure that pictures can be read for a model inside its file.

    Raises:
        InvalidInputError: it takes other pictures than square ones of three channels, or its crop leaves out an
            odd number of pixels.
    """
    received = None
    if facts.channels != 3 or facts.height != facts.width:
        received = f"one of {' × '.join(map(str, facts.shape))}"
    elif facts.info.crop_margin % 2:
        received = (
            f"one with a crop margin of {facts.info.crop_margin} pixels, half of which is no whole number"
        )
    if received:
        raise InvalidInputError(
            f"Expected a model of square RGB pictures for an ONNX file that takes a JPEG. Received: {received}. Leave "
            "input='jpeg' out: the file then takes pixels."
        )


def with_reader(proto: Any, facts: ModelFacts, options: Options) -> Any:
    """A file that takes pixels as one that takes the bytes of one JPEG or PNG, `[bytes]` uint8.

    Args:
        proto: `onnx.ModelProto`, finished; of opset 18 or newer, where the resizing operator smooths.
        facts: of the model; `check_readable_for` has found nothing.
        options: for the name of the input.

    Raises:
        MissingExtraError: onnxruntime-extensions is not installed.
    """
    onnx = require("onnx", "onnx")
    require(MODULE, EXTRA)
    processing, general = require(_STEPS, EXTRA), require(f"{_STEPS}.steps.general", EXTRA)
    vision = require(f"{_STEPS}.steps.vision", EXTRA)
    base: Any = require(f"{_STEPS}.step", EXTRA).Step  # of a package that may be absent
    kind = proto.graph.input[0].type.tensor_type.elem_type

    class Square(base):
        def __init__(self) -> None:
            super().__init__(["image"], ["square"])

        def _create_graph_for_step(self, graph: Any, onnx_opset: int) -> Any:
            del graph, onnx_opset
            return onnx.parser.parse_graph(
                _SQUARE.format(
                    given=self.input_names[0],
                    made=self.output_names[0],
                    size=facts.height,
                    kept=f"{facts.height / (facts.height + facts.info.crop_margin):.9f}",
                    mode=MODES[facts.info.interpolation],
                    kind={onnx.TensorProto.FLOAT: "float", onnx.TensorProto.FLOAT16: "float16"}[kind],
                    type=kind,
                )
            )

    given = processing.create_named_value(
        options.input_name or READER_INPUT, onnx.TensorProto.UINT8, ["bytes"]
    )
    pipeline = processing.PrePostProcessor([given], options.operators)
    to_planes = [vision.ChannelsLastToChannelsFirst()] if facts.info.layout == "nchw" else []
    pipeline.add_pre_processing(
        [
            vision.ConvertImageToBGR(),
            Square(),
            general.ReverseAxis(axis=2, dim_value=3),
            *to_planes,
            general.Unsqueeze([0]),
        ]
    )
    _rename_input(proto)
    made = pipeline.run(proto)
    for output in made.graph.output:
        output.type.tensor_type.shape.dim[0].dim_value = 1
    return made


def _rename_input(proto: Any) -> None:
    """Give the network's own input a name that the new one cannot have."""
    graph, inner = proto.graph, "pixels/inside"
    old = graph.input[0].name
    for node in graph.node:
        node.input[:] = [inner if name == old else name for name in node.input]
    graph.input[0].name = inner


def checked(source: Source, framing: Framing, size: int) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of a picture that the decoder inside a file can be fed with, and what to remark on it.

    Raises:
        UnreadablePictureError: it cannot: no picture, neither JPEG nor PNG, not whole, a gray or CMYK JPEG, or too large.
    """
    from PIL import Image

    content = content_of(source)
    named = content if hasattr(source, "read") else source  # what messages name; a stream is read once
    check_header(named)
    decoded = framing.decode(named, size)  # all of it: what is missing shows only at its end
    opened = Image.open(io.BytesIO(content))
    reason = None
    if opened.format not in KINDS:
        reason = f"{opened.format}, and the file decodes JPEG and PNG alone"
    elif (
        opened.mode != "RGB" and opened.format == "JPEG"
    ):  # gray ones come out with every third pixel exchanged
        reason = f"a JPEG of {opened.mode} pixels, which the file decodes wrongly"
    elif opened.format == "JPEG" and decoded.remarks:
        reason = f"a JPEG that {decoded.remarks[0]}"
    if reason:
        raise UnreadablePictureError(f"Expected {describe(source)}. Received {reason}. {_ADVICE}", reason)
    turned = turn_of(opened) is not None
    return content, (
        "is stored turned (EXIF), which an ONNX file that reads it does not see",
    ) if turned else ()


def as_png(pixels: npt.NDArray[Any], margin: int) -> bytes:
    """A PNG of which the crop of a file that reads pictures is just these pixels, `[H, W, 3]`, 0–255."""
    from PIL import Image

    whole = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    around = np.pad(whole, ((margin // 2,) * 2, (margin // 2,) * 2, (0, 0)))
    stream = io.BytesIO()
    Image.fromarray(around).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
