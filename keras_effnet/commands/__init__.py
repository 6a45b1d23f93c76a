"""The commands of `keras-effnet`. Each module adds one sub-parser and runs it.

A module offers

    NAME, HELP, EXAMPLES       what the help shows
    add_arguments(parser)
    check(arguments)           tells what is wrong with the arguments, before anything heavy is imported
    run(arguments)             imports what it needs, once and first; returns the exit code

A test runs every kind of mistake and makes sure that none of them has loaded TensorFlow.
"""
