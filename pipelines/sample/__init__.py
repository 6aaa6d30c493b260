"""The embedded sample: drawn scenes with true captions, in COCO's format."""

from pipelines.sample.writer import make_sample

__all__ = ["make_sample"]
