"""Workers on a Ray cluster: an actor with one core each, wherever there is room.

The network travels to the actors; the photographs do not: every node must see them under the same names.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_effnet.errors import EffNetError, ExportError, InvalidInputError, require
from keras_effnet.system.files import files_of
from keras_effnet.system.resources import thread_settings

from ..runners import load
from .work import Answers, Photograph, Question, answer
from .workers import DiedError, NoRoomError

KNOCK_S = 10.0  # for a cluster to take a connection
BEGIN_S = 120.0  # for an actor that has a core to load the network


def connected() -> Any:
    """Ray, connected: to the cluster that this program uses already, to that of RAY_ADDRESS, or to one of its own.

    Raises:
        MissingExtraError: Ray is not installed.
        InvalidInputError: there is no cluster at that address.
    """
    ray = require("ray", "ray")
    if ray.is_initialized():
        return ray
    address = os.environ.get("RAY_ADDRESS")
    try:
        _knock(address or "")
        ray.init(
            address, include_dashboard=None if address else False, logging_level="ERROR", log_to_driver=False
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise InvalidInputError(
            f"Expected a Ray cluster{f' at RAY_ADDRESS={address}' if address else ''}. It cannot be reached "
            f"({(str(error).splitlines() or [type(error).__name__])[0]}). Start one with ray start --head, or unset "
            "RAY_ADDRESS for this machine alone."
        ) from error
    return ray


def _knock(address: str) -> None:
    """Make sure that somebody listens at `host:port` or `ray://host:port`: Ray itself tries for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()


def cluster_cores() -> int:
    """The cores of the cluster; raises as `connected` does."""
    return int(connected().cluster_resources().get("CPU", 0))


class Answering:
    """What runs in an actor.

    Args:
        contents: of the artefact's files, by their names below the artefact; one without a name for a file.
        name: of the artefact.
        question: what it is asked.
    """

    def __init__(self, contents: dict[str, bytes], name: str, question: Question) -> None:
        os.environ.update(thread_settings(1))
        self.folder = tempfile.TemporaryDirectory()
        artefact = Path(self.folder.name) / name
        for inner, content in contents.items():
            place = artefact / inner if inner else artefact
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        self.runner, self.question = load(artefact, threads=1), question

    def answer(self, photographs: Sequence[Photograph]) -> Answers:
        """Answer; none for no photograph."""
        return answer(self.question, self.runner, photographs)


def contents_of(artefact: Path) -> dict[str, bytes]:
    """The files of an artefact, as `Answering` takes them."""
    inner = artefact.is_dir()
    return {
        file.relative_to(artefact).as_posix() if inner else "": file.read_bytes()
        for file in files_of(artefact)
    }


class Actor:
    """An actor of the cluster.

    Args:
        contents: a reference to what `contents_of` gives.
        name, question: as of `Answering`.

    Raises:
        NoRoomError: no core is free.
        ExportError: it cannot begin.
    """

    def __init__(self, contents: Any, name: str, question: Question) -> None:
        self.ray = connected()
        if self.ray.available_resources().get("CPU", 0) < 1:
            raise NoRoomError
        self.actor = self.ray.remote(num_cpus=1)(Answering).remote(contents, name, question)
        try:
            self.ray.get(self.actor.answer.remote([]), timeout=BEGIN_S)
        except self.ray.exceptions.GetTimeoutError as error:
            self.close()
            raise NoRoomError from error
        except self.ray.exceptions.RayActorError as error:
            self.close()
            if not error.actor_init_failed:  # lost with its node, before it began
                raise NoRoomError from error
            raise ExportError(
                f"Expected an actor that scores photographs with {name!r}. It did not begin: "
                f"{_cause(error)}. Every node needs keras-effnet and the runtime of the file."
            ) from error

    def answer(self, photographs: Sequence[Photograph]) -> Answers:
        """Answer, or say that the actor is gone."""
        try:
            found: Answers = self.ray.get(self.actor.answer.remote(photographs))
        except self.ray.exceptions.RayActorError as error:
            raise DiedError("was lost with its process or its node") from error
        except self.ray.exceptions.RayTaskError as error:
            raise ExportError(f"Expected the actors to compute. One said: {_cause(error)}.") from error
        return found

    def close(self) -> None:
        """End it."""
        if self.ray.is_initialized():
            self.ray.kill(self.actor)


def _cause(error: Exception) -> str:
    """What went wrong in an actor, in one line."""
    inner = getattr(error, "cause", None)
    if isinstance(inner, EffNetError):
        return str(inner).rstrip(".")
    return next(
        (line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "nothing"
    ).rstrip(".")
