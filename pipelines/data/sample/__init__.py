"""The embedded sample: drawn scenes with true captions, colours and scenes, in COCO's format."""

from pipelines.data.sample.writer import make_sample

__all__ = ["make_sample"]
