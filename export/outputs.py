"""What leaves a model: the name of each output, what kind of answer it is, and the names of its classes.

The kind is found in the layers that make the output; people can say another one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network.reader import Call, CallGraph, read_graph
from keras_effnet.pictures.labels import check_lines, known_labels, labels_in
from keras_effnet.pictures.thresholds import thresholds_in

from .kinds import CLASSES, EMBEDDING, KINDS, LOGITS, MAP, SIGMOID, SIGMOIDS, Kind

LABELS_FILE = "labels.txt"
ONLY_OUTPUT = "probabilities"  # the name of a single output, whatever it is: clients know it
# layers behind which an output is still what it was
_PASSING = frozenset(["Activation", "ActivityRegularization", "Dropout", "Flatten", "Identity", "Reshape"])
_WEIGHTED = frozenset(["Conv2D", "Dense"])  # what their plain sums are at the end of a network: logits


SaidKinds = str | Mapping[str, str] | None
SaidLabels = Sequence[str] | Mapping[str, Sequence[str]] | None


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output of a model or an artefact.

    Attributes:
        name: by which artefacts give it.
        kind: one of `KINDS`.
        labels: names of its columns, or none.
        thresholds: how probable a class must be to be accepted: one for all or one for each; none accept all.
    """

    name: str
    kind: str
    labels: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()

    @property
    def meaning(self) -> Kind:
        """Its kind with what it says."""
        return KINDS[self.kind]


PLAIN = (Output(name=ONLY_OUTPUT, kind=CLASSES.name),)


def outputs_of(model: Any, kinds: SaidKinds = None, labels: SaidLabels = None) -> tuple[Output, ...]:
    """The outputs of a model, in its order.

    Args:
        model: a functional Keras model, or a Sequential one.
        kinds: what people say that they are: a name of `KINDS` for a single output, else by output. What is
            left out is found in the layers.
        labels: class names: a sequence for the only output that has any, else by output; None for those that
            the model carries, or ImageNet's for its classifier.

    Raises:
        InvalidInputError: outputs that cannot be told apart by name, a kind that does not fit, or labels that
            do not.
    """
    names = output_names(model)
    shapes = [tuple(tensor.shape[1:]) for tensor in tensors_of(model)]
    said = _said_kinds(kinds, names)
    given = _said_labels(labels, names, shapes, said)
    graph, places = _graph_of(model), places_of(model)
    made = []
    for place, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        position = None if graph is None else graph.outputs[places[place]].call
        kind = _checked(said[name], name, shape) if name in said else _found(graph, position, shape)
        if name in given and not kind.has_labels:
            kind = _labelled(kind, name, name in said, shape)
        columns = shape[0] if len(shape) == 1 else None
        known = given.get(name)
        if known is None and kind.has_labels:
            known = _carried(model, graph, position, columns)
        made.append(
            Output(
                name=name,
                kind=kind.name,
                labels=_fitting(known, columns, name, names),
                thresholds=thresholds_in(_ahead(graph, position)) if kind.is_probability else (),
            )
        )
    return tuple(made)


def check_decides(outputs: Sequence[Output]) -> None:
    """Make sure that there is an output on which a file can agree or not.

    Raises:
        InvalidInputError: there is none.
    """
    if not any(output.meaning.decides for output in outputs):
        kinds = " and ".join(dict.fromkeys(output.kind for output in outputs))
        raise InvalidInputError(
            "Expected min_agreement with an output that decides something: a best class, a yes or no. Received: "
            f"{kinds} alone, to which a file is nearer or farther but never agrees. Leave it out: verification asks "
            "for cosine and SQNR of each picture."
        )


def tensors_of(model: Any) -> list[Any]:
    """The output tensors of a model, in the order of `output_names`."""
    made = structure_of(model)
    return list(made.values()) if isinstance(made, Mapping) else list(made)


def structure_of(model: Any) -> Any:
    """What a model gives: a list of tensors, or a dictionary of them.

    Raises:
        InvalidInputError: something deeper.
    """
    made = model.outputs if _is_sequential(model) else model.output
    if not isinstance(made, Mapping | list | tuple):
        return [made]
    if not all(hasattr(each, "shape") for each in (made.values() if isinstance(made, Mapping) else made)):
        raise InvalidInputError(
            f"Expected the outputs of {model.name!r} as one tensor, a list or a dictionary of tensors. Received: "
            "lists or dictionaries inside one. Pass keras.Model(inputs, {'a name': tensor, …})."
        )
    return made


def output_names(model: Any) -> tuple[str, ...]:
    """By which names the outputs of a model leave it: a dictionary's keys, else those of the layers.

    Raises:
        InvalidInputError: names that are no text, or not each another.
    """
    made = structure_of(model)
    advice = "Name them: keras.Model(inputs, {'a name': tensor, …})."
    if isinstance(made, Mapping):
        names = tuple(made)
        if odd := [name for name in names if not isinstance(name, str) or not name.strip()]:
            raise InvalidInputError(f"Expected outputs with names. Received: {odd[0]!r}. {advice}")
        return names
    if len(made) == 1:
        return (ONLY_OUTPUT,)
    names = tuple(str(call.layer.name) for call in _makers(model))
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise InvalidInputError(
            f"Expected outputs that have names of their own. Received: {len(names)}, of which several come from the "
            f"layer {repeated[0]!r}. {advice}"
        )
    return names


def by_name(names: Sequence[str], made: Any) -> dict[str, Any]:
    """What a call of a model gave, by the names of its outputs."""
    if isinstance(made, Mapping):
        return {name: made[name] for name in names}
    values = made if isinstance(made, list | tuple) else [made]
    return dict(zip(names, values, strict=True))


def labels_file(output: Output, outputs: Sequence[Output]) -> str:
    """The file for the class names of one of several outputs: `labels.txt`, or `labels_NAME.txt`."""
    if len(outputs) == 1:
        return LABELS_FILE
    return f"labels_{re.sub(r'[^A-Za-z0-9._-]', '_', output.name)}.txt"


def _is_sequential(model: Any) -> bool:
    return type(model).__name__ == "Sequential"


def _graph_of(model: Any) -> CallGraph | None:
    """The calls of a model; None where it cannot be read."""
    try:
        return read_graph(model)
    except InvalidInputError:
        return None


def _makers(model: Any) -> list[Call]:
    """The calls that make the outputs, in the order of `tensors_of`."""
    graph = read_graph(model)
    return [graph.calls[graph.outputs[place].call] for place in places_of(model)]


def places_of(model: Any) -> list[int]:
    """Where each output of `tensors_of` stands in `model.outputs`, whose order is Keras' own."""
    flat = [id(tensor) for tensor in model.outputs]
    return [flat.index(id(tensor)) for tensor in tensors_of(model)]


def _found(graph: CallGraph | None, position: int | None, shape: tuple[Any, ...]) -> Kind:
    """The kind of an output by the layers that make it; `position` is that of the call that does."""
    if len(shape) > 1:
        return MAP
    if graph is None or position is None or not shape:
        return EMBEDDING
    last = _deciding(graph, position)
    activation = _activation_of(last)
    if activation == "softmax":
        return CLASSES
    if activation == "sigmoid":
        return SIGMOID if shape[0] == 1 else SIGMOIDS
    return LOGITS if activation == "linear" and last.kind in _WEIGHTED else EMBEDDING


def _deciding(graph: CallGraph, position: int) -> Call:
    """The call behind which an output stays what it is."""
    call = graph.calls[position]
    while call.kind in _PASSING and _activation_of(call) in ("", "linear") and len(call.inputs) == 1:
        call = graph.calls[call.inputs[0].call]
    return call


def _activation_of(call: Call) -> str:
    """The name of the function at the end of a call; empty for a layer that has none."""
    if call.kind in ("Softmax", "Sigmoid"):  # also what keras.ops leaves behind
        return call.kind.lower()
    return str(getattr(getattr(call.layer, "activation", None), "__name__", ""))


def _said_kinds(kinds: SaidKinds, names: Sequence[str]) -> dict[str, Kind]:
    if kinds is None:
        return {}
    said = kinds if isinstance(kinds, Mapping) else dict.fromkeys(names, kinds)
    if not isinstance(kinds, Mapping) and len(names) > 1:
        raise InvalidInputError(
            f"Expected kinds by output, of which there are {len(names)}: {', '.join(names)}. Received: {kinds!r}. "
            f"Pass for example kinds={{{names[0]!r}: {kinds!r}}}."
        )
    for name, kind in said.items():
        if name not in names:
            raise unknown_name("an output", name, names)
        if kind not in KINDS:
            raise unknown_name("the kind of an output", kind, KINDS)
    return {name: KINDS[kind] for name, kind in said.items()}


def _checked(kind: Kind, name: str, shape: tuple[Any, ...]) -> Kind:
    if not kind.fits(shape):
        fitting = [each.name for each in KINDS.values() if each.fits(shape)]
        raise InvalidInputError(
            f"Expected {name!r}, whose shape is {list(shape)} for one picture, to be {' or '.join(fitting)}. "
            f"Received: {kind.name!r}."
        )
    return kind


def _labelled(kind: Kind, name: str, is_said: bool, shape: tuple[Any, ...]) -> Kind:
    """What an output is that people have class names for."""
    if is_said or len(shape) != 1:
        raise InvalidInputError(
            f"Expected labels for an output of classes. Received: labels for {name!r}, {kind.name} "
            f"({kind.words}), which has none. Leave them out."
        )
    return LOGITS


def _said_labels(
    labels: SaidLabels, names: Sequence[str], shapes: Sequence[tuple[Any, ...]], said: Mapping[str, Kind]
) -> dict[str, tuple[str, ...]]:
    """Class names by output."""
    if labels is None:
        return {}
    if isinstance(labels, Mapping):
        for name in labels:
            if name not in names:
                raise unknown_name("labels by output, each", name, names)
        return {name: check_lines(lines) for name, lines in labels.items()}
    lines = check_lines(labels)
    if len(names) == 1:
        return {names[0]: lines}
    fitting = [
        name
        for name, shape in zip(names, shapes, strict=True)
        if _count_fits(len(lines), shape[0] if len(shape) == 1 else None)
        and (name not in said or said[name].has_labels)
    ]
    if len(fitting) != 1:
        raise InvalidInputError(
            f"Expected labels by output, of which there are {len(names)}: {', '.join(names)}. Received: {len(lines)} "
            f"labels, which fit {' and '.join(fitting) or 'none'}. Pass for example labels={{{names[0]!r}: [...]}}."
        )
    return {fitting[0]: lines}


def _carried(
    model: Any, graph: CallGraph | None, position: int | None, columns: Any
) -> tuple[str, ...] | None:
    """The class names that a model has for one of its outputs."""
    if len(model.outputs) == 1:
        return known_labels(model)
    found = labels_in(_ahead(graph, position))
    return found if found is not None and _count_fits(len(found), columns) else None


def _ahead(graph: CallGraph | None, position: int | None) -> list[Any]:
    """The layers of the head that ends in an output, from its last one backwards."""
    if graph is None or position is None:
        return []
    call = graph.calls[position]
    ahead = [call.layer]
    while len(call.inputs) == 1 and call.kind in (*_PASSING, "Softmax", "Dense"):
        call = graph.calls[call.inputs[0].call]
        ahead.append(call.layer)
    return ahead


def _count_fits(count: int, columns: Any) -> bool:
    return count == columns or (count, columns) == (2, 1)  # a single sigmoid decides between two


def _fitting(
    labels: tuple[str, ...] | None, columns: Any, name: str, names: Sequence[str]
) -> tuple[str, ...]:
    if labels is None:
        return ()
    if not _count_fits(len(labels), columns):
        of = f" of {name!r}" if len(names) > 1 else ""
        raise InvalidInputError(
            f"Expected {columns or 0} labels, one for each output{of}. Received: {len(labels)}. "
            "Pass one name per class."
        )
    return labels
