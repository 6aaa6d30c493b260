"""A Python environment with the packages that some requirements need, and no others, made without a download.

The packages are links into this interpreter's own: an installation of torch takes minutes and a network.
"""

import re
import sys
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def clean_environment(folder: Path, requirements: list[str]) -> Path:
    """Make it; returns its interpreter. Packages that share a folder of modules (`nvidia`) come together."""
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    for found in needed(requirements).values():
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(found.locate_file(top))))
        for script in found.entry_points.select(group="console_scripts"):
            module, _, name = script.value.partition(":")
            path = folder / "bin" / script.name
            path.write_text(f"#!{folder}/bin/python\nfrom {module} import {name}\n{name}()\n")
            path.chmod(0o755)
    return folder / "bin" / Path(sys.executable).name


def needed(requirements: list[str]) -> dict[str, Distribution]:
    """The requirements and all that they need, by name.

    Raises:
        PackageNotFoundError: a requirement is not installed here in that version.
    """
    found: dict[str, Distribution] = {}
    queue = [(Requirement(line), False) for line in requirements]
    asked: set[str] = set()
    while queue:
        wanted, optional = queue.pop()
        if str(wanted) in asked:
            continue
        asked.add(str(wanted))
        try:
            package = distribution(wanted.name)
        except PackageNotFoundError:
            if optional:
                continue
            raise
        if not optional and not wanted.specifier.contains(package.version, prereleases=True):
            raise PackageNotFoundError(f"{wanted} (here: {package.version})")
        found[re.sub(r"[-_.]+", "-", wanted.name).lower()] = package
        for line in package.requires or ():
            new = Requirement(line)
            if new.marker is None or any(new.marker.evaluate({"extra": extra}) for extra in wanted.extras or {""}):
                queue.append((new, True))
    return found
