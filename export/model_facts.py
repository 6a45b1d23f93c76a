"""What an exporter must know about the model it is given, and leaves inside the artefact."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from keras_effnet.errors import ExportError, InvalidInputError
from keras_effnet.network.builder import is_whole
from keras_effnet.network.conventions import composed, convention_with, input_constants
from keras_effnet.network.reader import flat_layers
from keras_effnet.network.table import MIN_SIZE
from keras_effnet.network.variants import Variant, identify
from keras_effnet.pictures.framing import CROP_MARGIN, Framing, framing_of

from .legacy import in_keras_3
from .outputs import PLAIN, Output, SaidKinds, SaidLabels, outputs_of
from .precision import in_float32
from .soundness import check_sound

INPUT_NAME = "image"
NO_PREPROCESSING = "none inside the graph"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model on its way out: collected once by `facts_of`, handed through to everything that exports it.

    Attributes:
        model: the Keras model, all of it in float32.
        height, width, channels: of its input, in pixels; a size that the model leaves open is chosen here.
        outputs: names, kinds and class names of what leaves it.
        info: what the artefact says of itself; of a float32 one, unless `stored_as` another.
    """

    model: Any
    height: int
    width: int
    channels: int
    outputs: tuple[Output, ...]
    info: ArtefactInfo

    @property
    def output_names(self) -> tuple[str, ...]:
        """By which artefacts give the outputs, in the model's order."""
        return tuple(output.name for output in self.outputs)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names of the only output; empty when nobody knows them, or where there are several."""
        return only_labels(self.outputs)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one picture, (H, W, C)."""
        return self.height, self.width, self.channels

    def stored_as(self, recipe: str, layout: str = "nhwc") -> ModelFacts:
        """The same facts for an artefact of this recipe and this order of axes."""
        return replace(self, info=replace(self.info, recipe=recipe, layout=layout))


@dataclass(frozen=True, kw_only=True)
class ArtefactInfo:
    """Facts that travel inside every artefact, as JSON.

    Attributes:
        name: the model's name.
        variant: short name of the published variant, or None.
        recipe: how its numbers are stored.
        preprocessing: what the graph does to a pixel 0–255, in words.
        layout: order of the input's axes, `nhwc` or `nchw`.
        interpolation, crop_margin: how photographs are read for it, see `load_image`.
        outputs: what leaves it; empty for the classifier that most are. The class names of a single output are
            where the format has them.
    """

    name: str
    variant: str | None
    recipe: str
    preprocessing: str
    layout: str = "nhwc"
    interpolation: str = "bicubic"
    crop_margin: int = CROP_MARGIN
    outputs: tuple[Output, ...] = ()

    @property
    def usage(self) -> str:
        """What the artefact computes with pixels and which ones to pass, in words."""
        if self.preprocessing == NO_PREPROCESSING:
            return f"{NO_PREPROCESSING}; pass pixels that are preprocessed already"
        return f"inside the graph: {self.preprocessing}; pass RGB pixels 0-255"

    @property
    def framing(self) -> Framing:
        """The two as one."""
        return Framing(self.interpolation, self.crop_margin)

    def to_json(self) -> str:
        told = asdict(self)
        if not self.outputs:
            del told["outputs"]
        for output in told.get("outputs", ()):
            if not output["thresholds"]:
                del output["thresholds"]
        return json.dumps(told)

    @classmethod
    def from_json(cls, text: str) -> ArtefactInfo:
        """Read what `to_json` wrote.

        Raises:
            InvalidInputError: something else.
        """
        try:
            told = json.loads(text)
            outputs = [
                Output(
                    name=each["name"],
                    kind=each["kind"],
                    labels=tuple(each["labels"]),
                    thresholds=tuple(each.get("thresholds", ())),
                )
                for each in told.pop("outputs", ())
            ]
            return cls(**told, outputs=tuple(outputs))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidInputError(
                f"Expected the metadata that keras_effnet writes. Received: {text[:80]!r}. Export the model again."
            ) from error


def facts_of(
    model: Any, size: int | None = None, labels: SaidLabels = None, kinds: SaidKinds = None
) -> ModelFacts:
    """Collect what the exporters need.

    Args:
        model: a built model of Keras, or of tf_keras, with one image input `[N, H, W, C]`.
        size: side of the input in pixels, for a model that leaves it open.
        labels: class names in the order of the columns, of several outputs by name; default: those the model
            carries, or ImageNet's for its classifier. Two for a single sigmoid, the negative class first.
        kinds: what its outputs are, see `outputs_of`.

    Raises:
        InvalidInputError: no single image input of known size, another `size` than the model has, outputs
            without names, labels or kinds that do not fit, weights that are no numbers, or a model that answers
            differently every time.
        ExportError: Keras runs on another backend than TensorFlow, or the model computes in half
            precision and cannot be cloned, or Keras 3 cannot read a model of tf_keras.
    """
    _require_tensorflow_backend()
    if isinstance(model, str | os.PathLike):
        raise InvalidInputError(
            f"Expected a built model. Received: the path {os.fspath(model)!r}. Read it with keras.saving.load_model, a "
            "SavedModel with keras_effnet.export.from_saved_model."
        )
    given, model = model, in_keras_3(model)
    shape = _input_shape(model)
    if size is not None:
        size = _open_size(size, shape[:2])
    variant = identify(model)
    fallback = variant.resolution if variant else None
    height, width = (side or size or fallback for side in shape[:2])
    if height is None or width is None:
        raise InvalidInputError(
            f"Expected a model with a known input size. Received: input {shape}. "
            "Pass size=, or build the model with input_shape=(height, width, 3)."
        )
    outputs = outputs_of(model, kinds, labels)
    check_sound(given, (height, width, shape[2]))
    return ModelFacts(
        model=in_float32(model),
        height=height,
        width=width,
        channels=shape[2],
        outputs=outputs,
        info=replace(_told(model, variant), outputs=worth_telling(outputs, kinds)),
    )


def as_facts(model: Any, size: int | None = None) -> ModelFacts:
    """`facts_of` a model; of what was collected already, that itself."""
    return model if isinstance(model, ModelFacts) else facts_of(model, size)


def only_labels(outputs: Sequence[Output]) -> tuple[str, ...]:
    """The class names of the only output; empty where there are several."""
    return outputs[0].labels if len(outputs) == 1 else ()


def worth_telling(outputs: tuple[Output, ...], kinds: SaidKinds = None) -> tuple[Output, ...]:
    """What an artefact says of its outputs: nothing where it is what readers take it for anyway."""
    if len(outputs) > 1:
        return outputs
    told = tuple(replace(output, labels=()) for output in outputs)
    return () if told == PLAIN and kinds is None else told


def info_of(model: Any) -> ArtefactInfo:
    """What a Keras model itself says, as if it were an artefact."""
    return _told(model, identify(model))


def _told(model: Any, variant: Variant | None) -> ArtefactInfo:
    framing = framing_of(model)
    return ArtefactInfo(
        name=model.name,
        variant=variant.name if variant else None,
        recipe="float32",
        preprocessing=_preprocessing(model),
        interpolation=framing.interpolation,
        crop_margin=framing.margin,
    )


def _input_shape(model: Any) -> tuple[Any, ...]:
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] is None:
        raise InvalidInputError(
            "Expected a built model with one image input [N, height, width, channels]. "
            f"Received: input shape {shape}."
        )
    ordered = next((layer for layer in flat_layers(model) if hasattr(layer, "data_format")), None)
    if ordered is not None and ordered.data_format == "channels_first":
        raise InvalidInputError(
            "Expected a built model with one image input [N, height, width, channels]. "
            f"Received: {ordered.name!r}, which has its channels first. Build it under "
            "keras.config.set_image_data_format('channels_last') and load its weights."
        )
    return shape[1:]


def _open_size(size: Any, sides: tuple[int | None, ...]) -> int | None:
    """A size that was asked for; None for a model that has it already."""
    if not is_whole(size) or size < MIN_SIZE:
        raise InvalidInputError(
            f"Expected size as a whole number of at least {MIN_SIZE} pixels. Received: {size!r}. "
            "Pass one number, for example size=224."
        )
    if None in sides:
        return int(size)
    if any(side != size for side in sides):
        raise InvalidInputError(
            f"Expected no size for a model whose input is {sides[0]} × {sides[1]} pixels. Received: {size}. "
            "Leave it out, or build the model with input_shape=(None, None, 3)."
        )
    return None


def _preprocessing(model: Any) -> str:
    """The formula that the model applies to a pixel before its first convolution, in words."""
    constants = input_constants(model)
    if not constants:
        return NO_PREPROCESSING
    return convention_with(*composed(constants)).formula


def _require_tensorflow_backend() -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            "Expected Keras to run on TensorFlow for export. Received: the backend "
            f"{keras.backend.backend()!r}. Save the model, set KERAS_BACKEND=tensorflow and load it there."
        )
