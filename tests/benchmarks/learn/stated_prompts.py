"""Layouts of NSR-1K's prompts: what the box generator learns of numbers and relations, and what decoding adds."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from objgan.caption_parser import read_statements
from objgan.checkpoint import load_inference
from objgan.files import read_json, write_atomically
from objgan.metrics.bootstrap import mean_interval, ratio_interval
from objgan.metrics.named_classes import NamedClasses
from objgan.metrics.prompts import StatedPrompt, prompt_scores
from objgan.networks.box_generator import BoxGenerator, Candidates
from pipelines.evaluation.prompts_file import read_prompts_file
from pipelines.training.job import OpenRun
from tests.benchmarks.learn.fit import fit
from tests.benchmarks.learn.real_boxes import open_run
from tests.benchmarks.learn.rows import Cell, Log, Options, Row

NAME = "stated_prompts"
TITLE = "Boxes: numbers and relations of NSR-1K's prompts"

_BATCH, _CANDIDATES = 64, 16
_SHARES = {"captions": 0.0, "stated": 0.5}
"""Share of stated captions in a training batch."""
_FILES = ("counting.dev.json", "spatial.dev.json")
_MEASURES = ("numerical_accuracy", "precision", "recall", "spatial_accuracy", "all_named")


def cells(options: Options) -> list[Cell]:
    """A training with and one without stated captions for each seed."""
    return [
        Cell(f"{key}_{seed}", partial(_row, options, key, seed)) for seed in range(options.seeds) for key in _SHARES
    ]


def table(rows: dict[str, Row]) -> str:
    """Each training's scores, from the network alone and with decoding that obeys the prompt."""
    lines = [
        f"Development prompts of images that are not in the training data. K: candidate layouts; {_CANDIDATES}: stated "
        "numbers bound the decoder, and the layout that breaks the fewest facts is taken. Milliseconds of one core, "
        f"batch {_BATCH}.",
        "",
        "| training captions | seed | K | numerical | precision | recall | spatial | all named | ms a prompt |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key, row in rows.items():
        for most, found in row["scores"].items():
            figures = " | ".join("{:.3f} [{:.3f}, {:.3f}]".format(*found[name]) for name in _MEASURES)
            lines.append(f"| {key.split('_')[0]} | {row['seed']} | {most} | {figures} | {found['milliseconds']:.1f} |")
    return "\n".join(lines)


def _row(options: Options, key: str, seed: int, folder: Path, log: Log) -> Row:
    run = open_run(options, seed, folder, log, (f"boxes.training.stated_captions={_SHARES[key]}",))
    fitted = fit(run, log)
    generator = load_inference(fitted.checkpoint)["box_generator"]
    assert isinstance(generator, BoxGenerator)
    prompts = _prompts(options, run, folder)
    scores = {most: _measure(generator.eval(), prompts, run, most) for most in (1, _CANDIDATES)}
    log(json.dumps(scores))
    return {"scores": scores, "seconds": fitted.seconds, "seed": seed}


def _prompts(options: Options, run: OpenRun, folder: Path) -> list[StatedPrompt]:
    """Both files' prompts, without those of images in the data."""
    readers = [run.reader(split) for split in ("train", "validation", "test")]
    known = {reader.image_id(index) for reader in readers for index in range(len(reader))}
    entries = [entry for name in _FILES for entry in read_json(options.coco.parent / "nsr1k" / name, "NSR-1K")]
    path = folder / "prompts.json"
    write_atomically(path, json.dumps([entry for entry in entries if entry["image_id"] not in known]))
    return read_prompts_file(path).prompts(run.domain().classes)


def _measure(generator: BoxGenerator, prompts: list[StatedPrompt], run: OpenRun, most: int) -> dict[str, Any]:
    """Score -> value and interval; with one candidate the network alone, which nothing makes obey."""
    domain, seconds, parts = run.domain(), 0.0, []
    matcher, vocabulary = NamedClasses.of(domain), domain.vocabulary
    vocabulary.tokenize(prompts[0].text)  # loads the tokenizer
    unnamed = run.job.config.boxes.unnamed_presence
    generator.candidates = Candidates(most, numbers=most > 1, unnamed=unnamed)
    noise = torch.Generator().manual_seed(run.job.config.seed)
    for start in range(0, len(prompts), _BATCH):
        asked, began = prompts[start : start + _BATCH], time.process_time()
        tokens = [vocabulary.tokenize(prompt.text) for prompt in asked]
        ids = [torch.from_numpy(vocabulary.encode_tokens(some)) for some in tokens]
        words = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).long()
        stated = [read_statements(some, matcher) for some in tokens] if most > 1 else None
        drawn = torch.randn((len(asked), *generator.noise_shape), generator=noise)
        layout = generator.sample_layout(words, torch.tensor([len(some) for some in ids]), None, drawn, stated)
        seconds += time.process_time() - began
        parts.append(prompt_scores(layout, asked, generator.classes))
    joined: dict[str, Tensor] = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    right, drawn_objects, stated_objects = joined.pop("objects").T
    found = {name: mean_interval(values) for name, values in joined.items()}
    found |= {"precision": ratio_interval(right, drawn_objects), "recall": ratio_interval(right, stated_objects)}
    figures = {name: [float(np.round(v, 5)) for v in (i.value, i.low, i.high)] for name, i in found.items()}
    return {**figures, "milliseconds": 1000 * seconds / len(prompts)}
