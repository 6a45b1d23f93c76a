"""Signals that arrive at bad moments."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from keras_effnet.system.signals import Terminated, not_swallowed, terminable


class _Closing:
    """Is interrupted in its destructor, which cannot raise."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)
        time.sleep(0)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Interrupts raise, also in a job started in the background, which ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_interrupt_in_a_destructor_is_raised_after_it(number: int, error: type[BaseException]) -> None:
    with terminable(), not_swallowed(), pytest.raises(error) as caught:
        closing = _Closing(number)
        del closing
        for _ in range(1000):
            time.sleep(0.001)
    assert caught.type is error


def test_other_errors_of_destructors_go_to_the_hook_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __del__(self) -> None:
            raise ValueError("closed twice")

    told: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda found: told.append(found.exc_value))
    with not_swallowed():
        failing = Failing()
        del failing
    assert [str(error) for error in told] == ["closed twice"]
