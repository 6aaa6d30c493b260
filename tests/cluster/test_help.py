"""The help of `python -m cluster`."""

import argparse
import re

import pytest

from cluster.__main__ import COMMANDS, parser
from cluster.jobs.submit import STOP_S
from pipelines.command_line import GROUPS


def help_of(name: str) -> argparse.ArgumentParser:
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    command: argparse.ArgumentParser = commands.choices[name]
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_purpose_groups_every_default_and_examples(name: str) -> None:
    command = help_of(name)
    text = command.format_help()
    assert command.description and command.description.splitlines()[0].endswith(".")
    assert f"\nexamples:\n  {command.prog}" in text and "Exit codes: 0 success" in text
    groups = re.findall(r"^(\w[\w ]*):$", text, re.MULTILINE)
    assert groups[0] == "options" and groups[1:-1] == [group for group in GROUPS if group in groups]
    for action in command._actions:
        if action.option_strings and action.nargs != 0:
            assert action.required or "default: " in str(action.help) or action.default is not None, action.dest


def test_stop_names_its_deadline() -> None:
    assert f"after {STOP_S} s" in help_of("stop").format_help()
