"""`render`: the files that a cluster starts from, from a preset and single settings."""

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import InputError
from cluster.render import kuberay, ray_up
from cluster.render.alerts import rules
from cluster.render.dashboard import dashboard
from cluster.render.presets import PRESETS, all_settings, resolve
from cluster.render.settings import Settings
from pipelines import command_line


def add_parser(commands: Any) -> None:
    """`render` and its options."""
    text = "Manifests for KubeRay, or YAML for `ray up`, from a preset and single settings."
    command = commands.add_parser("render", help=text, description=text)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--preset", metavar="NAME", help=", ".join(PRESETS))
    what.add_argument("--list", action="store_true", help="presets and settings, with their defaults")
    what.add_argument(
        "--all",
        type=command_line.local_path,
        metavar="DIR",
        help="every preset, the alerts and the dashboard, into DIR",
    )
    command.add_argument(
        "--set",
        action=command_line.Assignments,
        default=[],
        metavar="NAME=VALUE",
        dest="assignments",
        help="one setting over the preset's, for example workers.max=16",
    )
    command.set_defaults(action=render)


def render(options: argparse.Namespace) -> int:
    """Print one preset, print what there is, or write all files."""
    if options.preset is None and options.assignments:
        raise InputError("--set goes with --preset")
    if options.list:
        print(listing())
    elif options.all is not None:
        _write_all(options.all)
    else:
        sys.stdout.write(text_of(resolve(options.preset, options.assignments), options.preset, options.assignments))
    return 0


def text_of(settings: Settings, preset: str, assignments: list[str] | tuple[str, ...] = ()) -> str:
    """The file of these settings, with a comment on where it is from."""
    command = " ".join([f"python -m cluster render --preset {preset}", *(f"--set {a}" for a in assignments)])
    head = f"# {PRESETS[preset].text}.\n# Made by: {command}\n"
    documents = kuberay.manifests(settings) if settings.kubernetes else [ray_up.config(settings)]
    return head + "---\n".join(_dump(document) for document in documents)


def files() -> Mapping[str, str]:
    """Everything that `--all` writes, by file name."""
    made = {f"{preset}.yaml": text_of(resolve(preset), preset) for preset in PRESETS}
    made["alerts.yaml"] = "# Prometheus rules, for a Prometheus without operator (rule_files).\n" + _dump(rules())
    made["dashboard.json"] = json.dumps(dashboard(), indent=2) + "\n"
    return made


def listing() -> str:
    """Presets and settings with their defaults."""
    width = max(map(len, PRESETS))
    lines = ["Presets:", *(f"  {name:{width}}  {preset.text}" for name, preset in PRESETS.items()), "", "Settings:"]
    for name, info in all_settings():
        lines.append(f"  {name}={_short(info.default)}")
        lines += textwrap.wrap(info.text, 110, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]" if value else "[]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _write_all(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files().items():
            aside = folder / f".{name}.part"
            aside.write_text(text, encoding="utf-8")
            aside.replace(folder / name)
    except OSError as error:
        raise InputError(f"--all {folder}: cannot write there ({error.strerror})") from None
    print(f"{len(files())} files: {folder}")


class _Dumper(yaml.SafeDumper):
    """Without anchors; texts of several lines as such."""

    def ignore_aliases(self, data: Any) -> bool:
        """Every value is written out."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _dump(document: Any) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
