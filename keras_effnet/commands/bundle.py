"""`keras-effnet bundle`: an exported file with everything around it that it needs where it runs."""

from __future__ import annotations

import argparse
from types import ModuleType

from keras_effnet.commands.flags import add_action, expanded_path, folder_path
from keras_effnet.errors import InvalidInputError
from keras_effnet.export.bundles import android, triton, web
from keras_effnet.system.files import check_new, check_writable, staged

NAME = "bundle"
HELP = "put an exported file into what runs it: a server, a page, a phone"
KINDS: dict[str, ModuleType] = {module.NAME: module for module in (triton, web, android)}
EXAMPLES = "\n".join(module.EXAMPLES for module in KINDS.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for module in KINDS.values():
        added = add_action(kinds, module.NAME, module.HELP, module.EXAMPLES)
        added.add_argument("files", nargs="+", type=expanded_path, metavar="FILE", help="exported files")
        added.add_argument(
            "--out", required=True, type=folder_path, metavar="DIR", help="folder to make, with all of it"
        )
        added.add_argument("--force", action="store_true", help="replace --out if it exists")
        module.add_arguments(added)


def check(arguments: argparse.Namespace) -> None:
    for file in arguments.files:
        if not file.is_file():
            received = "is a folder" if file.is_dir() else "does not exist"
            inside = sorted(path.name for path in (file / "export").glob("*.*") if path.is_file())
            advice = (
                f"Pass one of {str(file / 'export')!r}, {inside[0]} say."
                if inside
                else "Check the path, or make a file with keras-effnet export."
            )
            raise InvalidInputError(
                f"Expected an exported file. Received: {str(file)!r}, which {received}. {advice}"
            )
    check_new(arguments.out, overwrite=arguments.force)
    check_writable(arguments.out)
    KINDS[arguments.kind].check(arguments)


def run(arguments: argparse.Namespace) -> int:
    kind = KINDS[arguments.kind]
    with staged(arguments.out, overwrite=arguments.force) as folder:
        folder.mkdir()
        kind.write(arguments, folder)
    print(f"{arguments.out}\n{kind.next_step(arguments.out)}")
    return 0
