"""Layouts of prompts whose numbers and relations are known."""

from collections.abc import Sequence

from torch import Tensor

from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.metrics.prompts import prompt_scores
from pipelines.evaluation.prompts_file import PromptsFile


class StatedPrompts:
    """The prompts of a file, as a model reads them.

    Raises:
        InputError: a class that the model does not know, or a prompt without a known word.
    """

    def __init__(self, file: PromptsFile, model: ObjGAN) -> None:
        self._model, self._prompts, self._words = model, file.prompts(model.domain.classes), []
        for number, prompt in enumerate(self._prompts, 1):
            try:
                self._words.append(model.read_caption(prompt.text))
            except InputError as error:
                raise InputError(f"--prompts: {file.path}: entry {number}: {error}") from None

    def __len__(self) -> int:
        return len(self._prompts)

    def measure(self, places: Sequence[int], seed: int) -> dict[str, Tensor]:
        """Scores of these prompts' layouts; noise is a function of (seed, number of the prompt) alone."""
        words, count = self._model.word_ids([self._words[place] for place in places])
        noise = self._model.noise("box_generator", [f"{seed}/prompt/{place}" for place in places])
        stated = [self._words[place].statements for place in places]
        layout = self._model.boxes(words, count, self._model.encode(words, count), noise, stated).to("cpu")
        scores = prompt_scores(layout, [self._prompts[place] for place in places], len(self._model.domain.classes))
        return {f"from_prompts/{name}": value for name, value in scores.items()}
