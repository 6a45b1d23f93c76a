"""`keras-effnet convert`: weights from any readable format to one that needs no flags."""

from __future__ import annotations

import argparse

from keras_effnet.commands.flags import add_preprocessing
from keras_effnet.commands.models import VARIANT, choose
from keras_effnet.system.quiet import check_backend
from keras_effnet.weights.convert import check_conversion, convert

NAME = "convert"
HELP = "convert a weight file or published set to .weights.h5 or .safetensors"
EXAMPLES = """\
  keras-effnet convert efficientnet_b0_rwightman-7f5810bc.pth b0.weights.h5
  keras-effnet convert imagenet lite0.safetensors --model lite0
  keras-effnet convert efficientnet-b4/ b4.weights.h5 --preprocessing advprop"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SRC", help="weight file, checkpoint folder or prefix, or published set"
    )
    parser.add_argument("target", metavar="DST", help="file that ends in .weights.h5 or .safetensors")
    parser.add_argument(
        "--model", metavar="VARIANT", help="needed for a published set; else recognized by shapes"
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="take the raw variables of a training checkpoint, not their averages",
    )
    add_preprocessing(parser)
    parser.add_argument("--padding", metavar="NAME", help="same or symmetric, if the file does not say")
    parser.add_argument("--epsilon", type=float, help="of batch normalization, if the file does not say")
    parser.add_argument("--force", action="store_true", help="replace DST if it exists")


def check(arguments: argparse.Namespace) -> None:
    if arguments.model is not None:
        choose(arguments.model, (VARIANT,))
    check_conversion(
        arguments.source,
        arguments.target,
        variant=arguments.model,
        preprocessing=arguments.preprocessing,
        overwrite=arguments.force,
    )
    check_backend()


def run(arguments: argparse.Namespace) -> int:
    # `convert` reads its source, and tells what is wrong with it, before it builds a network
    path = convert(
        arguments.source,
        arguments.target,
        variant=arguments.model,
        ema=not arguments.raw,
        preprocessing=arguments.preprocessing,
        padding=arguments.padding,
        epsilon=arguments.epsilon,
        overwrite=arguments.force,
    )
    print(path)
    return 0
