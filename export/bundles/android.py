"""An Android Studio project that classifies photographs with LiteRT's CompiledModel: `templates/android` and a network.

The project reads `model.json` for everything that differs from file to file, so its Kotlin is the same for all.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from string import Template

from .classifier import Classifier, check_single, read_classifier

NAME = "android"
HELP = "an Android Studio project in Kotlin that classifies photographs on a phone"
EXAMPLES = """\
  keras-effnet bundle android out/lite0_float16.tflite --out app
  keras-effnet bundle android out/lite0_int8.tflite --out app"""

_TEMPLATES = Path(__file__).parent / "templates" / "android"
_ASSETS = Path("app/src/main/assets")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def check(arguments: argparse.Namespace) -> None:
    """Tell what is wrong with the file."""
    check_single(arguments.files)


def write(arguments: argparse.Namespace, folder: Path) -> None:
    """The project with the network, its facts and its names as assets."""
    classifier = read_classifier(arguments.files[0])
    shutil.copytree(_TEMPLATES, folder, dirs_exist_ok=True)
    assets = folder / _ASSETS
    assets.mkdir()
    classifier.write_into(assets)
    readme = folder / "README.md"
    text = Template(readme.read_text(encoding="utf-8")).substitute(_words(classifier))
    readme.write_text(text, encoding="utf-8")


def next_step(out: Path) -> str:
    """How to build it."""
    return (
        f"Open {out} in Android Studio and press Run; its README.md says which file is for which processor."
    )


def _words(classifier: Classifier) -> dict[str, str]:
    """What differs in the README from file to file."""
    fraction = classifier.side / (classifier.side + classifier.margin)
    part = f" ({100 * fraction:.4g} % of the shorter side)" if classifier.margin else ""
    return {
        "name": classifier.name,
        "recipe": classifier.recipe or "unknown recipe",
        "processor": "CPU" if classifier.input == "uint8" else "GPU, else the CPU",
        "side": str(classifier.side),
        "classes": str(len(classifier.labels)),
        "input": classifier.input,
        "output": classifier.output,
        "fraction": f"{fraction:.4g}",
        "square": f"the central square{part}",
    }
