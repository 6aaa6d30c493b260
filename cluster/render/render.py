"""`render`: the files that a cluster starts from, from a preset and single settings."""

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.render import kuberay, ray_up
from cluster.render.alerts import rules
from cluster.render.dashboard import dashboard
from cluster.render.presets import PRESETS, SETTINGS, resolve
from cluster.render.settings import Settings
from objgan.config import value_text
from objgan.errors import InputError
from pipelines import command_line
from pipelines.command_line import option, repeated


class RenderOptions(command_line.OptionsClass):
    """Write manifests for KubeRay, or YAML for `ray up`, from a preset and single settings.

    examples:
      python -m cluster render --list
      python -m cluster render --preset gpu-spot --set workers.max=16 > job.yaml
      python -m cluster render --all manifests
    """

    preset: str | None = option(
        None, "inputs", f"preset to print: {', '.join(PRESETS)} (default: none)", metavar="NAME"
    )
    assignments: Sequence[str] = repeated(
        "settings",
        "override one setting of the preset, for example workers.max=16 (default: none; may be repeated)",
        str,
        action=command_line.Assignments,
        flag="--set",
        metavar="NAME=VALUE",
    )
    all: Path | None = option(
        None,
        "outputs",
        "write the files of all presets, the alerts and the dashboard into a folder (default: print one preset)",
        command_line.local_path,
        metavar="DIR",
    )
    list: bool = option(False, "output format", "print presets and settings, with their defaults")


def render(options: RenderOptions) -> int:
    """Print one preset, print a list of presets and settings, or write all files."""
    if sum([options.preset is not None, options.list, options.all is not None]) != 1:
        raise InputError("render: give one of --preset NAME, --list and --all DIR")
    if options.preset is None and options.assignments:
        raise InputError("--set goes with --preset")
    if options.preset is not None:
        settings = resolve(options.preset, options.assignments)
        sys.stdout.write(text_of(settings, options.preset, options.assignments))
    elif options.all is not None:
        _write_all(options.all)
    else:
        print(listing())
    return 0


def text_of(settings: Settings, preset: str, assignments: Sequence[str] = ()) -> str:
    """The file of these settings, with a comment that names the command."""
    command = " ".join([f"python -m cluster render --preset {preset}", *(f"--set {a}" for a in assignments)])
    head = f"# {PRESETS[preset].text}.\n# Made by: {command}\n"
    documents = kuberay.manifests(settings) if settings.kubernetes else [ray_up.config(settings)]
    return head + "---\n".join(_dump(document) for document in documents)


def files() -> Mapping[str, str]:
    """The files of `--all`, by name."""
    made = {f"{preset}.yaml": text_of(resolve(preset), preset) for preset in PRESETS}
    made["alerts.yaml"] = "# Prometheus rules, for a Prometheus without operator (rule_files).\n" + _dump(rules())
    made["dashboard.json"] = json.dumps(dashboard(), indent=2) + "\n"
    return made


def listing() -> str:
    """Presets and settings with their defaults."""
    width = max(map(len, PRESETS))
    lines = ["Presets:", *(f"  {name:{width}}  {preset.text}" for name, preset in PRESETS.items()), "", "Settings:"]
    for name, field in SETTINGS.items():
        lines.append(f"  {name}={value_text(field.default)}")
        lines += textwrap.wrap(field.description or "", 110, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


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
