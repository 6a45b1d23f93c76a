"""Children of the tests start in half the time: Keras and TensorFlow do without what they would rather have.

Python reads this file at its start where `PYTHONPATH` holds this folder; conftest.py sees to it. Keras looks at once
for scikit-learn, pandas, Matplotlib and IPython, TensorFlow for JAX, for wrappers and galleries that nothing here
uses: where they are installed, `import keras` costs 5.3 s of CPU time instead of 3. Who else asks for one gets it.
"""

from __future__ import annotations

import gc
import sys
from importlib.abc import MetaPathFinder
from typing import Any

HIDDEN = {"keras": {"sklearn", "pandas", "matplotlib", "IPython"}, "tensorflow": {"jax"}}


class NotThere(MetaPathFinder):
    """Says of a library that it is not installed, to those whom it is hidden from."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if any(name in hidden for hidden in HIDDEN.values()):
            frame: Any = sys._getframe(1)
            while frame.f_code.co_filename.startswith("<frozen importlib"):
                frame = frame.f_back
            asks = frame.f_globals.get("__name__", "").partition(".")[0]
            if name in HIDDEN.get(asks, ()):
                raise ModuleNotFoundError(f"No module named {name!r} for {asks}: see {__file__}", name=name)


sys.meta_path.insert(0, NotThere())
gc.set_threshold(50_000, 10, 10)  # imports leave no garbage, but are searched for it again and again
