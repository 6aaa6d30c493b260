"""Models, checkpoints and layouts that somebody else made: refused in one short line, before they take any memory."""

import hashlib
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from objgan.checkpoint import STATE, _seal, load_inference, read_state
from objgan.config import Config, build_config
from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.stages import build_network
from pipelines.recipes import resolve
from pipelines.storage.checkpoints import CheckpointStore, finished_checkpoint
from pipelines.storage.storage import Storage

Change = Callable[[Path], None]
DEEP = "[" * 100_000 + "]" * 100_000


def _json(name: str, *place: Any) -> Change:
    """Puts the last of `place` where the others lead in a JSON file."""
    *way, last, value = place

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        inner = content
        for part in way:
            inner = inner[part]
        inner[last] = value
        (folder / name).write_text(json.dumps(content))

    return change


def _setting(name: str, value: Any) -> Change:
    return _json("config.json", *name.split("."), value)


def _text(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text) and None


def _without(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def _huge_tensor(folder: Path) -> None:
    """A header that declares a terabyte, in an empty file."""
    header = {"weight": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}}
    text = json.dumps(header).encode()
    (folder / "networks/box_generator.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)


def _sparse_tensor(folder: Path) -> None:
    """The same in a file of a terabyte that takes no room on the disk."""
    _huge_tensor(folder)
    with (folder / "networks/box_generator.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, 2) + (1 << 34))


def _huge_header(folder: Path) -> None:
    path = folder / "networks/box_generator.safetensors"
    path.write_bytes((99 << 20).to_bytes(8, "little") + b" " * (1 << 20))


def _vectors(vectors: np.ndarray) -> Change:
    return lambda folder: save_file({"vectors": vectors}, folder / "domain/vectors.safetensors")


WORDS = 14
NAMES = "domain/classes.json"
STATISTICS = "domain/layout_statistics.json"

# What is changed, with sums made anew as somebody who means harm would, and what the message names.
HOSTILE: dict[str, tuple[Change, str]] = {
    "hidden 200000": (_setting("boxes.hidden", 200_000), "boxes.hidden"),
    "hidden within bounds, not in the file": (_setting("boxes.hidden", 8192), "size mismatch"),
    "10^8 objects": (_setting("data.max_objects", 10**8), "data.max_objects"),
    "masks that no memory holds": (_setting("data.mask_size", 1024), "data"),
    "components": (_setting("boxes.components", 1000), "size mismatch"),
    "channels": (_setting("encoders.channels", 4096), "size mismatch"),
    "a width of images": (_setting("images.width", 1024), "size mismatch"),
    "blocks": (_setting("images.first_blocks", 100), "is missing"),
    "blocks without end": (_setting("images.first_blocks", 10**9), "images.first_blocks"),
    "a template": (_setting("shapes.template", 512), "shape_generator"),
    "a width of shapes": (_setting("shapes.width", 1024), "size mismatch"),
    "noise": (_setting("shapes.noise", 4096), "size mismatch"),
    "many scales": (_setting("images.sizes", [16 * 2**n for n in range(30)]), "images.sizes"),
    "a large scale": (_setting("images.sizes", [2**40]), "images"),
    "fewer than none": (_setting("boxes.hidden", -5), "boxes.hidden"),
    "a number of 5000 digits": (_text("config.json", '{"seed": ' + "9" * 5000 + "}"), "5,000 digits"),
    "NaN": (_text("config.json", '{"boxes": {"dropout": NaN}}'), "holds NaN"),
    "infinity": (_text("config.json", '{"boxes": {"dropout": 1e999}}'), "too large"),
    "settings as a list": (_text("config.json", "[]"), "config.json"),
    "settings nested deep": (_text("config.json", DEEP), "nested more than 32"),
    "a setting of 3 MB": (_setting("boxes." + "k" * 3_000_000, 1), "unknown setting"),
    "a value of 3 MB": (_setting("boxes.adversarial", "v" * 3_000_000), "boxes.adversarial"),
    "10,000 unknown settings": (_text("config.json", json.dumps({f"k{n}": 1 for n in range(10_000)})), "and 9"),
    "weights of a terabyte": (_huge_tensor, "cannot read the tensors"),
    "a header of 99 MB": (_huge_header, "cannot read the tensors"),
    "no weights": (_text("networks/box_generator.safetensors", ""), "cannot read the tensors"),
    "weights without a file": (_without("networks/box_generator.safetensors"), "box_generator.safetensors"),
    "classes as numbers": (_text(NAMES, "[1, 2, 3]"), "class list"),
    "classes as an object": (_text(NAMES, '{"a": 1}'), "class list"),
    "no classes": (_text(NAMES, "[]"), "class list"),
    "more classes": (_text(NAMES, json.dumps([f"c{n}" for n in range(50_000)])), "50000 classes"),
    "a class of 3 MB": (_text(NAMES, json.dumps(["c" * 3_000_000, "b", "c"])), "class list"),
    "half a character": (_text(NAMES, '["\\ud800", "b", "c"]'), "surrogate"),
    "statistics as a list": (_text(STATISTICS, "[]"), "layout statistics"),
    "statistics without a part": (_text(STATISTICS, '{"mean": [0, 0, 0, 0]}'), "layout statistics"),
    "statistics of five": (_json(STATISTICS, "mean", [0.1] * 5), "mean"),
    "statistics as text": (_json(STATISTICS, "std", ["a", "b", "c", "d"]), "std"),
    "counts under none": (_json(STATISTICS, "class_counts", [-1, 2, 3]), "class_counts"),
    "counts of 10^18": (_json(STATISTICS, "object_counts", [10**18]), "object_counts"),
    "counts as numbers with fractions": (_json(STATISTICS, "images", 1.5), "images"),
    "words as numbers": (_json("domain/vocabulary.json", "words", [1, 2]), "no word list"),
    "more words than vectors": (_json("domain/vocabulary.json", "words", ["<pad>", "<unk>"] * 500_000), "vectors"),
    "a format as text": (_json("domain/vocabulary.json", "format", "x"), "format 'x'"),
    "vectors that are too wide": (_vectors(np.zeros((WORDS, 5000), np.float32)), "word vectors"),
    "vectors of another type": (_vectors(np.zeros((WORDS, 16), np.float64)), "word vectors"),
    "vectors that are no numbers": (_vectors(np.full((WORDS, 16), np.nan, np.float32)), "finite"),
    "synonyms as text": (_text("domain/synonyms.json", '{"kite": "x"}'), "synonyms"),
}

# What is changed after the sums were made: the list of files itself.
LISTS: dict[str, tuple[Change, str]] = {
    "no sums": (_json("model.json", "sha256", {}), "no sums"),
    "sums as a list": (_json("model.json", "sha256", []), "no sums"),
    "no list at all": (_text("model.json", '{"format": 1}'), "no sums"),
    "a file without a sum": (lambda f: _drop_sum(f, "networks/box_generator.safetensors"), "has no sum"),
    "settings without a sum": (lambda f: _drop_sum(f, "config.json"), "config.json has no sum"),
    "a file that was added": (_text("domain/synonyms.json", "{}"), "synonyms.json has no sum"),
    "a way out": (_json("model.json", "sha256", "../../etc/passwd", "0" * 64), "is no file of a model"),
    "an absolute name": (_json("model.json", "sha256", "/etc/passwd", "0" * 64), "is no file of a model"),
    "a name with NUL": (_json("model.json", "sha256", "config.json\0", "0" * 64), "is no file of a model"),
    "a name of 3 MB": (_json("model.json", "sha256", "n" * 3_000_000, "0" * 64), "is no file of a model"),
    "no sum": (_json("model.json", "sha256", "config.json", None), "as the sum"),
    "another sum": (_json("model.json", "sha256", "config.json", "0" * 64), "was changed"),
    "a format as text": (_json("model.json", "format", "1"), "is not a model's"),
    "a later format": (_json("model.json", "format", 99), "newer than"),
    "a list": (_text("model.json", "[]"), "is not a model's"),
    "nested deep": (_text("model.json", DEEP), "nested more than 32"),
    "a key twice": (_text("model.json", '{"format": 1, "format": 1}'), "twice"),
}


KINDS = {"sums agree": HOSTILE, "sums": LISTS}


def _drop_sum(folder: Path, name: str) -> None:
    facts = json.loads((folder / "model.json").read_text())
    del facts["sha256"][name]
    (folder / "model.json").write_text(json.dumps(facts))


def _forge(model: Path, target: Path, change: Change) -> Path:
    """A copy of a model with a change, and with sums that vouch for it."""
    shutil.copytree(model, target)
    change(target)
    facts = json.loads((target / "model.json").read_text())
    files = [path for path in target.rglob("*") if path.is_file() and path.name != "model.json"]
    sums = {path.relative_to(target).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (target / "model.json").write_text(json.dumps({**facts, "sha256": sums}))
    return target


LOAD_ALL = """
import json, resource, sys
from pathlib import Path
from objgan.errors import InputError
from objgan.generation import ObjGAN

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

ObjGAN.load(sys.argv[1], device="cpu")
before, outcomes = peak(), {}
for folder in sorted(Path(sys.argv[2]).iterdir()):
    try:
        ObjGAN.load(folder, device="cpu")
        outcomes[folder.name] = ["loaded", peak() - before]
    except InputError as error:
        outcomes[folder.name] = [str(error), peak() - before]
    except BaseException as error:
        outcomes[folder.name] = ["CRASH " + repr(error)[:300], peak() - before]
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def loaded(model_folder: Path, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> dict[str, Any]:
    """What loading said of every hostile model, and how far it raised the peak of memory (MiB), in one process."""
    folder = tmp_path_factory.mktemp("hostile")
    for kind, cases in KINDS.items():
        for name, (change, _) in cases.items():
            place = folder / f"{kind}: {name}"
            if cases is HOSTILE:
                _forge(model_folder, place, change)
            else:
                shutil.copytree(model_folder, place)
                change(place)
    words = [sys.executable, "-c", LOAD_ALL, str(model_folder), str(folder)]
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes: dict[str, Any] = json.loads(done.stdout)
    return outcomes


@pytest.mark.parametrize(
    ("name", "reason"),
    [(f"{kind}: {name}", reason) for kind, cases in KINDS.items() for name, (_, reason) in cases.items()],
)
def test_a_hostile_model_is_refused_in_one_short_line(loaded: dict[str, Any], name: str, reason: str) -> None:
    message, _ = loaded[name]
    assert reason in message, message[:600]
    assert not message.startswith(("CRASH", "loaded")) and "\n" not in message and len(message) < 1500


def test_hostile_models_take_no_memory(loaded: dict[str, Any]) -> None:
    most = max(loaded.items(), key=lambda item: item[1][1])
    assert most[1][1] < 300, f"MiB over a good model: {most}"


def test_the_command_says_so_with_exit_code_2(model_folder: Path, repository: Path, tmp_path: Path) -> None:
    for number, change in enumerate((_setting("boxes.hidden", 200_000), _huge_tensor)):
        folder = _forge(model_folder, tmp_path / str(number), change)
        words = ["generate", "a red kite", "--model", str(folder), "--out", str(tmp_path / "out")]
        words = [sys.executable, "-m", "pipelines", *words]
        done = subprocess.run(words, cwd=repository, capture_output=True, text=True)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert len(done.stderr) < 600 and not (tmp_path / "out").exists()


def test_a_good_model_is_loaded_as_it_was_written(model_folder: Path, tmp_path: Path) -> None:
    again = _forge(model_folder, tmp_path / "again", lambda folder: None)
    (again / "README.md").write_text("files of other names are never read")
    ours, theirs = ObjGAN.load(model_folder, "cpu"), ObjGAN.load(again, "cpu")
    for name, network in ours.networks.items():
        there = theirs.networks[name].state_dict()
        assert all(torch.equal(value, there[key]) for key, value in network.state_dict().items())
        assert not any(buffer.is_meta for buffer in theirs.networks[name].buffers())


def test_the_most_objects_that_settings_allow_are_made_in_bounded_memory(
    model_folder: Path, repository: Path, tmp_path: Path
) -> None:
    """It is within bounds, so that the model is loaded, and must not take gigabytes."""
    model, folder = ObjGAN.load(model_folder, "cpu"), tmp_path / "many"
    data = model.config.data.model_copy(update={"max_objects": 256})
    config = model.config.model_copy(update={"data": data})
    networks = {name: build_network(name, config, model.domain) for name in model.networks}
    ObjGAN(config, model.domain, networks).save(folder)
    program = textwrap.dedent(
        """
        import resource, sys
        from objgan.generation import ObjGAN
        ObjGAN.load(sys.argv[1], "cpu").generate(["a red kite"], n=8, batch_size=8)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        """
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    assert int(done.stdout) < 3000


def _bounds(config: type, prefix: str = "") -> list[tuple[str, set[str]]]:
    found = []
    for name, field in config.model_fields.items():  # type: ignore[attr-defined]
        kind = field.annotation
        if hasattr(kind, "model_fields"):
            found += _bounds(kind, f"{prefix}{name}.")
        elif kind in (int, float) or kind in (int | None, float | None):
            found.append((prefix + name, {type(part).__name__.lower() for part in field.metadata}))
    return found


def test_every_number_among_the_settings_has_two_bounds() -> None:
    found = _bounds(Config)
    assert len(found) > 100
    for name, bounds in found:
        assert bounds & {"le", "lt"} and bounds & {"ge", "gt"}, f"{name} has no {bounds}"


@pytest.mark.parametrize("value", [10**30, 1e308, float("inf"), float("nan"), -(10**30)])
def test_no_number_out_of_bounds_is_taken(value: float) -> None:
    for name, _ in _bounds(Config):
        values: Any = value
        for part in reversed(name.split(".")):
            values = {part: values}
        with pytest.raises(InputError, match=r"settings: ") as caught:
            build_config(values)
        assert len(str(caught.value)) < 600


def test_every_recipe_is_within_the_bounds() -> None:
    for recipe in ("tiny", "small", "paper", "fast"):
        build_config(resolve(recipe, None, ()).model_dump())


# Checkpoints: state.json has a sum of itself, which somebody who means harm makes anew, too.


@pytest.fixture(scope="module")
def checkpoint(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of stage boxes, made of the model."""
    folder: Path = tmp_path_factory.mktemp("checkpoint") / "step_00000010"
    shutil.copytree(model_folder, folder, ignore=shutil.ignore_patterns("model.json"))
    for path in (folder / "networks").iterdir():
        if path.stem != "box_generator":
            path.unlink()
    (folder / STATE).write_text(json.dumps({"format": 2, "stage": "boxes", "step": 10, "measures": {"label_f1": 0.5}}))
    _seal_anew(folder)
    assert set(load_inference(folder)) == {"box_generator"}
    return folder


def _seal_anew(folder: Path, sums: bool = True) -> None:
    facts = json.loads((folder / STATE).read_text())
    if sums:
        files = [path for path in folder.rglob("*") if path.is_file() and path.name != STATE]
        facts["sha256"] = {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    (folder / STATE).write_text(json.dumps(facts | {"seal": _seal(facts)}))


CHECKPOINTS: dict[str, tuple[Change, bool | None, str]] = {
    "hidden 200000": (_setting("boxes.hidden", 200_000), True, "boxes.hidden"),
    "hidden within bounds": (_setting("boxes.hidden", 8192), True, "size mismatch"),
    "weights of a terabyte": (_huge_tensor, True, "cannot read the tensors"),
    "words as numbers": (_json("domain/vocabulary.json", "words", [1, 2]), True, "no word list"),
    "no sums": (_json(STATE, "sha256", {}), False, "no sums"),
    "sums as text": (_json(STATE, "sha256", "x"), False, "no sums"),
    "a way out": (_json(STATE, "sha256", "../../x", "0" * 64), False, "is no file of a checkpoint"),
    "a way out of networks": (_json(STATE, "sha256", "networks/../../x.safetensors", "0" * 64), False, "is no file"),
    "a stage as a list": (_json(STATE, "stage", ["boxes"]), False, "is not a checkpoint"),
    "an unknown stage": (_json(STATE, "stage", "s" * 3_000_000), False, "unknown stage"),
    "a format as text": (_json(STATE, "format", "2"), False, "format '2'"),
    "a format as true": (_json(STATE, "format", True), False, "format True"),
    "nested deep": (_text(STATE, DEEP), None, "nested more than 32"),
    "a number of 5000 digits": (_text(STATE, '{"step": ' + "9" * 5000 + "}"), None, "5,000 digits"),
    "an average without a sum": (lambda f: _add_average(f), None, "has no sum"),
}


def _add_average(folder: Path) -> None:
    (folder / "averages").mkdir()
    shutil.copy(folder / "networks/box_generator.safetensors", folder / "averages")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused_in_one_short_line(checkpoint: Path, tmp_path: Path, name: str) -> None:
    change, sums, reason = CHECKPOINTS[name]
    folder = tmp_path / "step_00000010"
    shutil.copytree(checkpoint, folder)
    change(folder)
    if sums is not None:
        _seal_anew(folder, sums)
    with pytest.raises(InputError) as caught:
        load_inference(folder)
    message = str(caught.value)
    assert reason in message and "\n" not in message and len(message) < 700, message[:1000]


def test_measures_that_are_no_numbers_are_passed_over(checkpoint: Path, tmp_path: Path) -> None:
    for number, value in enumerate(("high", [1], None, {"a": 1}, True)):
        folder = tmp_path / f"step_{number:08d}"
        shutil.copytree(checkpoint, folder)
        _json(STATE, "measures", {"label_f1": value})(folder)
        _seal_anew(folder, False)
        assert read_state(folder)
    shutil.copytree(checkpoint, tmp_path / "step_00000010")
    store = CheckpointStore(Storage(tmp_path), 2, ("label_f1", "max"))
    assert store.best() == ("step_00000010", {"label_f1": 0.5})


@pytest.mark.parametrize(
    "content",
    ["[]", "3", '"x"', "{}", '{"checkpoint": "../x"}', '{"checkpoint": "/etc", "measures": {}}', '{"checkpoint": 1}'],
)
def test_a_finished_run_names_a_checkpoint_of_its_own(tmp_path: Path, content: str) -> None:
    (tmp_path / "finished.json").write_text(content)
    with pytest.raises(InputError, match=r"finished\.json does not name a checkpoint"):
        finished_checkpoint(Storage(tmp_path))
