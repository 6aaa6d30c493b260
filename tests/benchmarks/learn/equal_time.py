"""`python -m tests.benchmarks.learn.equal_time SECONDS [SETTING...]`: stage images after so many seconds of a core.

Images of the drawn sample's test split, from true layouts. Colours and backgrounds are judged by the nearest mean
colour of the training split's objects (of the class) and bands of background: nothing that has to be trained.
"""

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from objgan import drawing
from objgan.attributes import COLOURS, stated_colours
from objgan.batch import Batch, resize_images
from objgan.checkpoint import load_inference
from objgan.metrics.distances import frechet_distance
from objgan.metrics.images import object_colour_distance
from objgan.networks.encoders import ImageEncoder
from objgan.networks.painting import owner_shares
from objgan.stages.images import ImagesStage
from pipelines.data.loading.reader import evaluation_batches
from pipelines.training.job import OpenRun, TrainJob
from tests.benchmarks.learn.fit import fit
from tests.benchmarks.learn.sample_runs import SampleRuns

PICTURES, SIDE, BANDS, LEAST_PIXELS = 1500, 64, 4, 6
TRAINED_ON, TESTED_ON, SHOWN = 600, 200, 12
Name = TypeVar("Name", bound=Hashable)
Centroids = Mapping[Name, Tensor]


def seen_colours(images: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Mean colour of objects' visible pixels [B, R, 3], their area [B, R], and of the background's bands [B, 12]."""
    shares = owner_shares(resize_images(batch.layout.soft_masks, SIDE))
    area = shares.sum((2, 3))
    means = torch.einsum("bnhw,bchw->bnc", shares, images) / area.clamp_min(1e-3)[..., None]
    ground = shares[:, :1].unflatten(2, (BANDS, -1))  # [B, 1, bands, SIDE / bands, SIDE]
    bands = (images.unflatten(2, (BANDS, -1)) * ground).sum((3, 4)) / ground.sum((3, 4)).clamp_min(1e-3)
    return means[:, 1:], area[:, 1:], bands.flatten(1)


def objects(batch: Batch, areas: Tensor) -> list[tuple[int, int, tuple[int, int]]]:
    """(picture, object, (class, colour)) of those whose colour is known and that can be seen."""
    assert batch.colours is not None
    known = (batch.colours >= 0) & (areas > LEAST_PIXELS)
    return [(i, r, (int(batch.layout.labels[i, r]), int(batch.colours[i, r]))) for i, r in known.nonzero().tolist()]


def centroids(batches: list[Batch]) -> tuple[Centroids[tuple[int, int]], Centroids[int]]:
    """Of true images, by (class, colour) and by scene."""
    colours, scenes = defaultdict(list), defaultdict(list)
    for batch in batches:
        means, areas, bands = seen_colours(batch.pixels(SIDE), batch)
        assert batch.scenes is not None
        for picture, row, name in objects(batch, areas):
            colours[name].append(means[picture, row])
        for picture in (batch.scenes >= 0).nonzero().flatten().tolist():
            scenes[int(batch.scenes[picture])].append(bands[picture])
    return _means(colours), _means(scenes)


def judged(
    images: list[Tensor], test: list[Batch], train: list[Batch], decode: Callable[[list[int]], str]
) -> dict[str, float]:
    """Shares of stated colours, all colours and backgrounds that are right; distance; fine detail (energy over half of
    Nyquist's frequency); stripes.

    Objects whose class the training images do not show in their colour are left out.
    """
    colours, scenes = centroids(train)
    found: dict[str, list[float]] = defaultdict(list)
    for image, batch in zip(images, test, strict=True):
        means, areas, bands = seen_colours(image, batch)
        assert batch.scenes is not None
        stated = [stated_colours(decode(words).split()) for words in batch.words.tolist()]
        for picture, row, (label, colour) in objects(batch, areas):
            known = {name[1]: mean for name, mean in colours.items() if name[0] == label}
            if colour not in known:
                continue
            right = float(_nearest(means[picture, row], known) == colour)
            found["all_colours"].append(right)
            if COLOURS[colour] in stated[picture]:
                found["stated_colours"].append(right)
        for picture in (batch.scenes >= 0).nonzero().flatten().tolist():
            found["backgrounds"].append(float(_nearest(bands[picture], scenes) == batch.scenes[picture]))
        found["distance"] += object_colour_distance(image, batch.pixels(SIDE), batch.layout).tolist()
        found["fine_detail"] += _fine(image).tolist()
        found["stripes"] += stripes(image).tolist()
    return {name: float(torch.tensor(values).nanmean()) for name, values in found.items()}


def stripes(images: Tensor) -> Tensor:
    """Energy of the means of rows and of columns at periods under six pixels: [B, 3, S, S] -> [B]."""
    short = torch.fft.rfftfreq(images.shape[-1]) > 1 / 6
    lines = torch.stack([images.mean(3), images.mean(2)])
    return (torch.fft.rfft(lines).abs().square() * short).mean((0, 2, 3))


def main() -> None:
    """Train (or resume), measure, print a row as JSON; the run's folder gets a sheet of images."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.learn.equal_time", description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("settings", nargs="*", metavar="SETTING")
    parser.add_argument("--out", type=Path, default=Path("runs/equal_time"), metavar="DIR")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    runs = SampleRuns(asked.out, tuple(asked.settings), PICTURES)
    name = hashlib.sha256(json.dumps([asked.seconds, *asked.settings]).encode()).hexdigest()[:12]
    log = print
    run = runs.run("images", runs.config, asked.out / "images" / name, log)
    fitted = fit(run, log, asked.seconds / 60)
    stage = run.new_stage()
    assert isinstance(stage, ImagesStage)
    stage.networks.update(load_inference(fitted.checkpoint))
    stage.eval()
    # The judge's stage reads colours and scenes, too.
    columns = OpenRun(TrainJob("judge", runs.config, runs.prepared, asked.out / "judge", {}))
    train, test = (
        list(evaluation_batches(columns.reader(split), 40, 0, count))
        for split, count in (("train", TRAINED_ON), ("test", TESTED_ON))
    )
    with torch.no_grad():
        # Noise by image id: with other noise, the share of stated colours of one model moved by 3.5 points.
        made = [stage._make(batch, stage._noise(batch)).generated.images[-1].float() for batch in test]
        true = [batch.pixels(SIDE) for batch in test]
        eye = stage.helpers["image_encoder"]
        assert isinstance(eye, ImageEncoder)
        features = [torch.cat([eye.backbone(image)[1] for image in images]).numpy() for images in (true, made)]
    decode = stage.domain.vocabulary.decode
    row, of_true = (judged(images, test, train, decode) for images in (made, true))
    row |= {name: row[name] / of_true[name] for name in ("fine_detail", "stripes")}
    row |= {"fd_encoder": frechet_distance(*features), "steps": fitted.step, "seconds": fitted.seconds}
    pairs = zip(made[0][:SHOWN], true[0][:SHOWN], strict=True)
    sheet = [[drawing.enlarge(drawing.to_image(image), 192) for image in pair] for pair in pairs]
    captions = [decode(words) for words in test[0].words[:SHOWN].tolist()]
    drawing.grid(sheet, captions, ("generated", "true image")).save(asked.out / "images" / name / "sheet.png")
    print(json.dumps({key: round(value, 4) for key, value in row.items()}))


def _means(found: Mapping[Name, list[Tensor]]) -> Centroids[Name]:
    return {name: torch.stack(values).mean(0) for name, values in found.items()}


def _nearest(colour: Tensor, known: Centroids[Name]) -> Name | None:
    return min(known, key=lambda name: float((known[name] - colour).square().sum()), default=None)


def _fine(images: Tensor) -> Tensor:
    """Mean energy of frequencies above half of Nyquist's, across or down: [B, 3, S, S] -> [B]."""
    power = torch.fft.fft2(images).abs().square()
    frequency = torch.fft.fftfreq(images.shape[-1]).abs()
    high = torch.maximum(frequency[:, None], frequency) > 0.25
    return (power * high).mean((1, 2, 3))


if __name__ == "__main__":
    main()
