"""The folder `<out>.parts`: what was answered so far, whatever becomes of the process that asks.

    plan.json       what is asked of which photographs; only the same question goes on here
    lock            held by the one who writes; the system lets go of it when that process is gone
    000000032.npz   the answers for the photographs from number 32 on; it appears whole or not at all

In the end the parts are joined in their order, and the folder goes.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from keras_effnet.errors import ExportError, InvalidInputError
from keras_effnet.system.files import check_writable, files_of, remove, system_said, write_text

from .work import Answers, Photograph, Question

PLAN, LOCK, PART = "plan.json", "lock", ".npz"
# how a person calls what differs between two plans
_WORDS = {"photographs": "photographs", "model": "model", "labels": "class names"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked of which photographs, as digests; parts of another plan are not ours.

    Attributes:
        photographs, model, labels: digests of the files' names, of the file that answers, of the class names.
        question: what is asked, in words.
        run: photographs in each part.
    """

    photographs: str
    model: str
    labels: str
    question: str
    run: int

    @classmethod
    def of(
        cls, photographs: Sequence[Photograph], model: str, labels: Sequence[str], asked: Question, run: int
    ) -> Plan:
        """The plan for these photographs."""
        return cls(
            photographs=_digest(os.fsencode(str(photograph)) for photograph in photographs),
            model=model,
            labels=_digest(label.encode("utf-8", "surrogateescape") for label in labels),
            question=str(asked),
            run=run,
        )


def digest_of(path: Path) -> str:
    """A digest of the content of a file, or of all files of a SavedModel."""
    found = hashlib.sha256()
    for file in files_of(path):
        with file.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()


class Parts:
    """The parts of one output; use `opened`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done = {int(path.stem) for path in folder.glob(f"*{PART}") if _is_whole(path)}

    def record(self, start: int, answers: Answers) -> None:
        """Keep the answers for the photographs from `start` on.

        Raises:
            ExportError: the disk is full or failed.
        """
        temporary = self.folder / f".{start:09}{PART}"
        told = json.dumps([answers.count, answers.errors])
        try:
            with temporary.open("wb") as file:
                np.savez(file, values=answers.values, classes=answers.classes, told=np.array(told))
            temporary.replace(self.folder / f"{start:09}{PART}")
        except OSError as error:
            raise ExportError(
                f"Expected to write to {str(self.folder)!r}. The system said: {system_said(error)}. "
                "Free some space; the same command then goes on."
            ) from error
        self.done.add(start)

    def in_order(self) -> Iterator[tuple[int, Answers]]:
        """All answers with the number of the first photograph, in their order, one part in memory at a time."""
        for start in sorted(self.done):
            with np.load(self.folder / f"{start:09}{PART}") as arrays:
                count, errors = json.loads(str(arrays["told"]))
                answers = Answers(
                    count=count,
                    errors={int(place): text for place, text in errors.items()},
                    values=arrays["values"],
                    classes=arrays["classes"],
                )
            yield start, answers


@contextmanager
def opened(out: Path, plan: Plan) -> Iterator[Parts]:
    """The parts of an output, for one writer; the folder is gone where the block ends without an error.

    Raises:
        InvalidInputError: another process writes there, or there are parts of another plan.
    """
    from filelock import FileLock, Timeout

    check_writable(out)
    folder = out.with_name(f"{out.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InvalidInputError(
            f"Expected nobody else to write {str(out)!r}. Received: another process that does. "
            "Wait for it, or choose another name."
        ) from error
    try:
        _check_plan(folder, plan, out)
        parts, complete = Parts(folder), False
        try:
            yield parts
            complete = True
        finally:
            if complete or not parts.done:
                remove(folder)
    finally:
        lock.release()


def _check_plan(folder: Path, plan: Plan, out: Path) -> None:
    """Make sure that what was begun here is the same, or begin."""
    path = folder / PLAN
    wanted = asdict(plan)
    if not path.exists():
        write_text(path, json.dumps(wanted))
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    differ = [_WORDS.get(name, "options") for name, value in wanted.items() if found.get(name) != value]
    if differ:
        raise InvalidInputError(
            f"Expected to go on with what was begun in {str(folder)!r}. Received: other "
            f"{', '.join(dict.fromkeys(differ))}. Repeat the command that began it, delete the folder, or choose "
            f"another name than {out.name!r}."
        )


def _is_whole(path: Path) -> bool:
    """Whether a part can be read; after a power failure a file may lack its end."""
    return path.stem.isdecimal() and zipfile.is_zipfile(path)


def _digest(texts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for text in texts:
        found.update(text)
        found.update(b"\0")
    return found.hexdigest()
