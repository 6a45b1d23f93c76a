"""Reads the layer calls of a functional Keras model (Keras 3 or tf_keras), nested models included."""

from __future__ import annotations

from typing import Any

from keras_effnet.costs.graph import Call, Graph
from keras_effnet.errors import InvalidInputError


def read_model(model: Any) -> Graph:
    """The calls of `model`, in an order of execution.

    Args:
        model: a functional model, or a Sequential one that is built.

    Raises:
        InvalidInputError: not such a model.
    """
    return _Reader().read(model)


class _Reader:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.where: dict[int, int] = {}  # id of a Keras tensor → position of the call that makes it
        self.seen: set[int] = set()  # ids of the layers whose weights are counted
        self.alive: list[Any] = []  # keeps tensors from being collected and their ids from being reused

    def read(self, model: Any) -> Graph:
        _check(model)
        self._enter(model)
        outputs = tuple(self._visit(tensor) for tensor in model.outputs)
        return Graph(calls=tuple(self.calls), outputs=outputs)

    def _enter(self, model: Any) -> None:
        for index, tensor in enumerate(model.inputs):
            if id(tensor) not in self.where:
                name = getattr(tensor, "name", f"input_{index}")
                self._put(tensor, Call(name=str(name), kind="InputLayer", config={}))

    def _visit(self, wanted: Any) -> int:
        """Read everything that `wanted` depends on, without recursion: deep networks are deep."""
        stack = [wanted]
        while stack:
            tensor = stack[-1]
            if id(tensor) in self.where:
                stack.pop()
                continue
            operation, node_index, tensor_index = tuple(tensor._keras_history)[:3]
            sources = _tensors(operation._inbound_nodes[node_index].input_tensors)
            missing = [source for source in sources if id(source) not in self.where]
            if missing:
                stack.extend(reversed(missing))
                continue
            if hasattr(operation, "layers"):
                self._nest(operation, sources, tensor, tensor_index)
            else:
                self._put(tensor, self._call(operation, sources))
            stack.pop()
        return self.where[id(wanted)]

    def _call(self, operation: Any, sources: list[Any]) -> Call:
        first = id(operation) not in self.seen
        self.seen.add(id(operation))
        is_layer = hasattr(operation, "count_params")
        config = dict(operation.get_config()) if is_layer else {}
        if config.get("data_format") == "channels_first":
            raise InvalidInputError(
                f"Expected layers with data_format='channels_last'. Received: {operation.name!r} with "
                "'channels_first'. Build the model with channels_last to count it."
            )
        return Call(
            name=operation.name,
            kind=type(operation).__name__,
            config=config,
            inputs=tuple(self.where[id(source)] for source in sources),
            weights=int(operation.count_params()) if is_layer else None,
            first=first,
        )

    def _nest(self, model: Any, sources: list[Any], tensor: Any, tensor_index: int) -> None:
        """Read a model that is a layer of another one, in the place where it is called."""
        _check(model)
        inner = _Reader()
        inner.calls, inner.seen = self.calls, self.seen
        for inside, outside in zip(_tensors(model.inputs), sources, strict=True):
            inner.where[id(inside)] = self.where[id(outside)]
        self.where[id(tensor)] = inner._visit(_tensors(model.outputs)[tensor_index])
        self.alive.append(tensor)

    def _put(self, tensor: Any, call: Call) -> None:
        self.calls.append(call)
        self.where[id(tensor)] = len(self.calls) - 1
        self.alive.append(tensor)


def _tensors(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _check(model: Any) -> None:
    tensors = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not all(tensors) or not all(hasattr(tensor, "_keras_history") for tensor in _tensors(model.outputs)):
        raise InvalidInputError(
            "Expected a functional Keras model, or a Sequential one with a known input. "
            f"Received: {model!r}. Subclassed models have no graph to read; build it with keras.Model(inputs, outputs)."
        )
