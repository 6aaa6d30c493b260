"""The command-line parser of `pipelines`, `tune` and `cluster`, and types of options.

It needs only the standard library, so that it can report which package is missing.
"""

import argparse
import dataclasses
import getpass
import inspect
import os
import re
import sys
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast, dataclass_transform

from objgan.errors import nearest, unknown
from pipelines.redaction import redact

CHECKOUT = Path(__file__).resolve().parent.parent
Location = Path | str
"""A path on this machine, or a URI."""
T = TypeVar("T")
GROUPS = (
    "inputs",
    "job",
    "cluster",
    "outputs",
    "search",
    "budget",
    "best trial",
    "registry",
    "settings",
    "compute",
    "output format",
    "logging",
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")


class Parser(argparse.ArgumentParser):
    """A parser with the rules of every command line of this checkout.

    An option that is given twice is refused, where argparse would silently keep the last value; options with
    `action="append"` collect their values. Options are not abbreviated. For a misspelt name the error says which name
    was probably meant. An error is one line on stderr and exit code 2.
    """

    def __init__(self, *arguments: Any, **others: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **others})
        # Groups and commands take over the actions that are registered here.
        for name in (None, "store"):
            self.register("action", name, _Once)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse; report unknown options first, and with the usage of their own command."""
        words = list(sys.argv[1:] if args is None else args)
        ends = {action.nargs for action in self._actions}
        if argparse.PARSER not in ends and ("--" in words or argparse.REMAINDER not in ends):
            self._check_options(words[: words.index("--")] if "--" in words else words)
        found, rest = super().parse_known_args(words, namespace)
        if rest:
            self.error(f"unknown argument {rest[0]!r}")
        return found, rest

    def _check_options(self, words: Sequence[str]) -> None:
        known = self._option_string_actions
        for word in words:
            name = word.partition("=")[0]
            if name.startswith("--") and " " not in name and name not in known:
                self.error(
                    f"unknown option {name}" + (f": did you mean {near}?" if (near := nearest(name, known)) else "")
                )

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            kind, at = ("command", None) if isinstance(action, argparse._SubParsersAction) else ("value", action)
            raise argparse.ArgumentError(at, str(unknown(kind, value, list(action.choices))))

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(redact(message) if message else message, file)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong in one line, and exit with code 2."""
        line = " ".join(message.split())
        self.exit(2, f"error: {line}{'' if line.endswith('?') else ';'} `{self.prog} --help` lists the options\n")


def commands_parser(
    prog: str, description: str, epilog: str, commands: Mapping[str, tuple[type, Any]]
) -> argparse.ArgumentParser:
    """A parser of several commands, each with a class of options, whose docstring's first sentence is its help."""
    top = Parser(prog=prog, description=description, epilog=epilog)
    added = top.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, (kind, _) in commands.items():
        command = added.add_parser(name, help=(kind.__doc__ or "").splitlines()[0].split(". ")[0])
        add_options(command, kind, epilog)
    return top


@dataclass_transform(frozen_default=True)
class OptionsClass:
    """The options of a command: subclasses are frozen dataclasses, whose fields are made by `option` or `repeated`."""

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True)(cls)


def option(default: T, group: str, help: str, type: Callable[[str], T] | None = None, **more: Any) -> T:
    """A field of a class of options: `--name`, or an argument by its place where `flag` is its name in `--help`.

    group: one of GROUPS
    more:  as `ArgumentParser.add_argument` takes it
    """
    more |= {"group": group, "help": help, **({} if type is None else {"type": type})}
    return dataclasses.field(default=default, metadata=more)


def repeated(group: str, help: str, type: Callable[[str], T], **more: Any) -> Sequence[T]:
    """As `option`, of an option that may be given several times: all its values."""
    more |= {"action": "append", **more, "group": group, "help": help, "type": type}
    return cast(Sequence[T], dataclasses.field(default=(), metadata=more))


def add_options(parser: argparse.ArgumentParser, kind: Any, epilog: str) -> None:
    """Add the fields of a class of options, in groups; its docstring is the description, and has examples."""
    description, _, examples = inspect.cleandoc(kind.__doc__ or "").partition("\n\nexamples:\n")
    parser.description, parser.formatter_class = description, argparse.RawDescriptionHelpFormatter
    parser.epilog = f"examples:\n{examples}\n\n{epilog}" if examples else epilog
    groups: dict[str, Any] = {}
    for field in sorted(dataclasses.fields(kind), key=_place_in_help):
        more = dict(field.metadata)
        name, group = more.pop("flag", f"--{field.name.replace('_', '-')}"), more.pop("group")
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        if default is False:
            more["action"] = "store_true"
        elif default is True:
            # With `--no-NAME`.
            more["action"] = argparse.BooleanOptionalAction
        elif not more.get("required") and default not in (None, [], "") and "default" not in more["help"]:
            more["help"] += " (default: %(default)s)"
        more |= {"dest": field.name} if name.startswith("--") else {"metavar": name}
        groups[group] = groups.get(group) or parser.add_argument_group(group)
        groups[group].add_argument(*([name] if "dest" in more else [field.name]), default=default, **more)


def _place_in_help(field: dataclasses.Field[Any]) -> tuple[int, bool]:
    return GROUPS.index(field.metadata["group"]), field.metadata.get("flag", "--").startswith("--")


def read_options(kind: type[T], namespace: argparse.Namespace) -> T:
    """The parsed options of a class, frozen."""
    values = {field.name: getattr(namespace, field.name) for field in dataclasses.fields(cast(Any, kind))}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


class _Once(argparse._StoreAction):
    """Stores the value of an option, which may be given once."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Store the value.

        Raises:
            argparse.ArgumentError: the option has a value already.
        """
        given: set[str] = namespace.__dict__.setdefault("_given", set())
        if self.option_strings and self.dest in given:
            before = getattr(namespace, self.dest)
            raise argparse.ArgumentError(self, f"given twice ({before!s:.60} and {values!s:.60}): give it once")
        given.add(self.dest)
        super().__call__(parser, namespace, values, option_string)


class Assignments(argparse._AppendAction):
    """Collects NAME=VALUE pairs; each name may be given once."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add a pair.

        Raises:
            argparse.ArgumentError: the name has a value already.
        """
        name = values.partition("=")[0]
        for before in getattr(namespace, self.dest):
            if before.partition("=")[0] == name:
                raise argparse.ArgumentError(self, f"{name} given twice ({before:.60} and {values:.60}): give it once")
        super().__call__(parser, namespace, values, option_string)


def location(text: str) -> Location:
    """A path on this machine (also as `file:///path`), or any other URI unchanged.

    Raises:
        argparse.ArgumentTypeError: empty, a NUL, a URI that lacks a slash, or an unknown home folder.
    """
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("is empty or contains a NUL character: give a path or a URI")
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _expanded(text)
    if scheme[1].lower() == "file":
        parts = urllib.parse.urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise argparse.ArgumentTypeError(f"file://{parts.netloc}: a file URI names no other machine")
        return Path(urllib.parse.unquote(parts.path))
    if not text.startswith(f"{scheme[0]}/"):
        raise argparse.ArgumentTypeError(
            f"{scheme[0]} is neither a path nor a URI: write {scheme[0]}/... for a URI, ./{scheme[0]}... for a path"
        )
    return text


def location_text(text: str) -> str:
    """As `location`, as text: for values that messages repeat as they were typed.

    Raises:
        argparse.ArgumentTypeError: as `location`.
    """
    return str(location(text))


def local_path(text: str) -> Path:
    """A path on this machine, of an option that takes no URI.

    Raises:
        argparse.ArgumentTypeError: as `location`, or a URI.
    """
    place = location(text)
    if isinstance(place, Path):
        return place
    # The rest of a URI may hold a password.
    raise argparse.ArgumentTypeError(
        f"takes no {place.partition('://')[0]}:// URI: give a path on this machine, or a mount of that storage"
    )


def model(text: str) -> Location:
    """A model: a folder, its URI, or MLflow's `models:/NAME@ALIAS` and `runs:/ID/PATH`.

    Raises:
        argparse.ArgumentTypeError: as `location`.
    """
    return text if re.match(r"(models|runs|mlflow-artifacts):/", text) else location(text)


def counted(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text}: no such home folder; write the whole path, or set HOME") from None


def user() -> str:
    """The name of the user; `uid-NUMBER` if /etc/passwd does not list the user, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid-{os.getuid()}"


def name_user() -> None:
    """Set USER for a user without a name, because libraries ask for it: here and in child processes."""
    if user() == f"uid-{os.getuid()}":
        os.environ["USER"] = user()


def home() -> Path | None:
    """The user's home folder; None: HOME is not set, and /etc/passwd has no such user."""
    try:
        found = Path.home()
    except RuntimeError:
        return None
    # An empty HOME means the folder / to Python.
    return found if os.environ.get("HOME", "-") else None


def no_home() -> str:
    """The message for a user without a home folder."""
    return (
        f"HOME is not set and /etc/passwd has no user {os.getuid()}: set HOME to a folder that this user can write to; "
        f"Ray stores its token there"
    )


def missing_package(error: ModuleNotFoundError) -> str | None:
    """The message for a package that this Python lacks; None: the module is ours, and the error is a bug."""
    name = (error.name or "").partition(".")[0]
    if not name or (CHECKOUT / name).is_dir() or (CHECKOUT / f"{name}.py").is_file():
        return None
    made = CHECKOUT / ".venv" / "bin" / "python"
    advice = f"use {made}" if made.is_file() else f"run `make setup` in {CHECKOUT}, then use .venv/bin/python there"
    return f"{sys.executable} has no package {name}: {advice}"


def stop_without(error: ModuleNotFoundError) -> NoReturn:
    """End a program whose packages are missing: one line, exit code 2."""
    text = missing_package(error)
    if text is None:
        raise error
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)
