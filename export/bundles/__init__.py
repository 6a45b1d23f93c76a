"""Everything around an exported file that it needs where it runs, in one folder; a module for each kind of place.

A module offers

    NAME, HELP, EXAMPLES          what the help of `keras-effnet bundle` shows
    add_arguments(parser)         its own options; `files`, `--out` and `--force` are there already
    check(arguments)              tells what is wrong with them, before anything heavy is imported
    write(arguments, folder)      fills the folder, which does not exist yet and appears whole or not at all
    next_step(out)                the line that says what to do with it
"""
