"""The commands of `keras-effnet`. Each module adds one sub-parser and runs it.

A module offers `NAME`, `HELP`, `add_arguments(parser)` and `run(arguments) -> exit code`. Nothing
heavy is imported before `run`.
"""
