"""`render`: the files a cluster starts from."""

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """`render` and its options."""
    command = commands.add_parser("render", help="WIP", description="WIP")
    command.set_defaults(action=render)


def render(options: argparse.Namespace) -> int:
    """Not yet."""
    return 0
