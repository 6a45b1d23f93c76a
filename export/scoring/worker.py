"""The process that answers: `python -m keras_effnet.export.scoring.worker`, asked and answering over its pipes.

A process of its own kind, not of `multiprocessing`: that would import the caller's main module again, with
whatever it loads, and asks people for `if __name__ == "__main__":`.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Sequence

from keras_effnet.errors import EffNetError, ExportError, InvalidInputError

from ..runners import Runner, load
from .work import Answers, Photograph, Question, answer


def main() -> None:
    """Read a file's name and a question; then lists of photographs, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    asked, answering = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is not an answer

    def say(what: object) -> None:
        pickle.dump(what, answering, pickle.HIGHEST_PROTOCOL)
        answering.flush()

    file, question = pickle.load(asked)
    try:
        runner = load(file, threads=1)
    except EffNetError as error:
        return say(InvalidInputError(str(error)))
    say(None)
    assert isinstance(question, Question)
    while True:
        try:
            photographs = pickle.load(asked)
        except EOFError:
            return None
        say(_answer(runner, question, photographs))


def _answer(runner: Runner, question: Question, photographs: Sequence[Photograph]) -> Answers | ExportError:
    try:
        return answer(question, runner, photographs)
    except Exception as error:  # every runtime has errors of its own
        said = (str(error).splitlines() or [""])[0]
        return ExportError(
            f"Expected {str(runner.path)!r} to compute. Its runtime failed ({type(error).__name__}: {said}). "
            "Verify the file with keras-effnet verify."
        )


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(0)  # nobody listens any more
