"""Image generator: sizes, invariants, gradients, precision."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from objgan.batch import Batch
from objgan.domain import Domain
from objgan.layout import Layout
from objgan.networks.encoders import TextFeatures
from objgan.networks.image_generator import GeneratorSizes, ImageGenerator, ImageOutputs
from tests.tools.batches import word_mask

TINY = GeneratorSizes(
    sizes=(16, 32), width=8, noise=6, condition=4, text_channels=32, first_blocks=1, next_blocks=1, attention="cosine"
)

MODULATED = replace(TINY, modulation=True, class_channels=5, layout_norm=False, start_norm=False, condition_noise=0.1)
MODULATED = replace(MODULATED, modifiers=2, word_channels=16, textures=3)


def _generator(domain: Domain, sizes: GeneratorSizes = TINY, seed: int = 0) -> ImageGenerator:
    torch.manual_seed(seed)
    vocabulary = domain.vocabulary
    labels = torch.from_numpy(vocabulary.label_vectors(domain.classes))
    return ImageGenerator(sizes, torch.from_numpy(vocabulary.vectors), labels)


@pytest.fixture
def batch(make_batch: Callable[..., Batch]) -> Batch:
    """4 pictures of 2, 0, 4 and 1 objects."""
    return make_batch(4, counts=(2, 0, 4, 1))


def _text(batch: Batch, seed: int = 0) -> TextFeatures:
    draw = torch.Generator().manual_seed(seed)
    size, length = batch.words.shape
    words = torch.randn(size, 32, length, generator=draw) * word_mask(batch)[:, None]
    return TextFeatures(words, torch.randn(size, 32, generator=draw), word_mask(batch))


def _noise(batch: Batch) -> Tensor:
    return torch.randn(len(batch), 10, generator=torch.Generator().manual_seed(5))


def _trained(domain: Domain, batch: Batch, sizes: GeneratorSizes = TINY) -> ImageGenerator:
    """In eval mode, with normalisation statistics of its own."""
    generator = _generator(domain, sizes)
    for _ in range(3):
        generator(_text(batch), batch.words, batch.layout, _noise(batch))
    return generator.eval()


@pytest.fixture
def trained(domain: Domain, batch: Batch) -> ImageGenerator:
    """Of the published form."""
    return _trained(domain, batch)


@pytest.fixture(params=[TINY, MODULATED], ids=["published", "modulated"])
def either(domain: Domain, batch: Batch, request: pytest.FixtureRequest) -> ImageGenerator:
    """Of either form."""
    return _trained(domain, batch, request.param)


@torch.no_grad()
def _run(generator: ImageGenerator, batch: Batch, text: TextFeatures | None = None) -> ImageOutputs:
    return generator(text or _text(batch), batch.words, batch.layout, _noise(batch))


def test_parameters_at_the_published_sizes() -> None:
    """19.3 M published; ours 19.37 M, of which 13.2 M in residual blocks and 4.9 M in the first linear layer."""
    with torch.device("meta"):
        generator = ImageGenerator(GeneratorSizes(), torch.empty(100, 50), torch.empty(80, 50))
    assert sum(p.numel() for p in generator.parameters()) == pytest.approx(19.3e6, rel=0.02)
    trunk = generator.first.blocks[0].block[0]
    assert trunk.in_channels == generator.next[1].blocks[0].block[0].in_channels == 3 * 48 + 50
    assert len(generator.first.blocks) == 8 and len(generator.next[0].blocks) == 4


@pytest.mark.parametrize("scales", [(16,), (16, 32, 64), (32, 64), (64, 128)])
def test_shapes_at_every_scale(domain: Domain, batch: Batch, scales: tuple[int, ...]) -> None:
    generator = _generator(domain, replace(TINY, sizes=scales)).eval()
    out = _run(generator, batch)
    assert [image.shape for image in out.images] == [(4, 3, side, side) for side in scales]
    assert all(image.dtype == torch.float32 and image.abs().max() <= 1 for image in out.images)
    assert [maps.shape for maps in out.word_maps] == [(4, 8, side // 2, side // 2) for side in scales[1:]]
    assert out.mean.shape == out.log_variance.shape == (4, 4)
    assert out.object_context.shape == (4, 4, 8) and out.label_vectors.shape == (4, 4, 16)
    assert out.object_weights.shape == (4, 4, 8) and generator.noise_shape == (10,)


@pytest.mark.parametrize("scales", [(), (8, 16), (48, 96), (32, 128)])
def test_sizes_that_do_not_fit_are_refused(scales: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sizes must"):
        GeneratorSizes(sizes=scales)


@pytest.mark.parametrize("wrong", [{"modifiers": 1}, {"textures": 2}])
def test_modifiers_and_textures_need_modulation(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="need modulation"):
        GeneratorSizes(**wrong)


def test_words_of_another_length_are_refused(domain: Domain, batch: Batch) -> None:
    with pytest.raises(ValueError, match="do not match"):
        _generator(domain)(_text(batch), batch.words[:, :-1], batch.layout, _noise(batch))


def test_a_batch_of_one_is_a_batch_of_many(either: ImageGenerator, batch: Batch) -> None:
    together, text, noise = _run(either, batch), _text(batch), _noise(batch)
    for b in range(len(batch)):
        one = torch.tensor([b])
        with torch.no_grad():
            alone = either(text[one], batch.words[one], batch.layout[one], noise[one])
        torch.testing.assert_close(alone.images[-1][0], together.images[-1][b], atol=1e-4, rtol=0)
        torch.testing.assert_close(alone.object_context[0], together.object_context[b], atol=1e-5, rtol=0)


def test_what_padding_holds_never_matters(either: ImageGenerator, batch: Batch) -> None:
    text, layout = _text(batch), batch.layout
    clean = _run(either, batch)
    no_word, no_object = ~word_mask(batch), ~layout.valid
    assert no_word.any() and layout.masks is not None
    dirty = replace(
        batch,
        words=batch.words.masked_fill(no_word, 10**6),
        layout=Layout(
            labels=layout.labels.masked_fill(no_object, -77),
            boxes=layout.boxes.masked_fill(no_object[..., None], 0.7),
            count=layout.count,
            masks=layout.masks.masked_fill(no_object[..., None, None], 255),
        ),
    )
    features = replace(text, words=text.words.masked_fill(no_word[:, None], 1e6))
    out = _run(either, dirty, features)
    assert all(
        torch.equal(a, b) for a, b in zip(out.images + out.word_maps, clean.images + clean.word_maps, strict=True)
    )
    for name in ("object_context", "label_vectors", "object_weights"):
        assert torch.equal(getattr(out, name), getattr(clean, name))
        assert not getattr(out, name)[no_object].any()


def test_the_amount_of_padding_does_not_matter(either: ImageGenerator, batch: Batch) -> None:
    text, layout = _text(batch), batch.layout
    assert layout.masks is not None
    longer = replace(
        batch,
        words=nn.functional.pad(batch.words, (0, 3)),
        layout=Layout(
            nn.functional.pad(layout.labels, (0, 2)),
            nn.functional.pad(layout.boxes, (0, 0, 0, 2)),
            layout.count,
            nn.functional.pad(layout.masks, (0, 0, 0, 0, 0, 2)),
        ),
    )
    features = TextFeatures(nn.functional.pad(text.words, (0, 3)), text.sentence, word_mask(longer))
    out, clean = _run(either, longer, features), _run(either, batch)
    torch.testing.assert_close(out.images[-1], clean.images[-1], atol=1e-4, rtol=0)


def test_object_context_belongs_to_the_sample(either: ImageGenerator, batch: Batch) -> None:
    """Changing one caption or one layout changes that sample's c_obj and image, and no other's."""
    text, before = _text(batch), _run(either, batch)
    words = text.words.clone()
    words[2] += 1.0
    after = _run(either, batch, replace(text, words=words * word_mask(batch)[:, None]))
    changed = (after.object_context - before.object_context).abs().flatten(1).amax(1) > 1e-6
    assert changed.tolist() == [False, False, True, False]
    masks = batch.layout.soft_masks
    masks[3] = masks[3].flip(-1)
    after = _run(either, replace(batch, layout=batch.layout.with_masks(masks)))
    changed = (after.images[-1] - before.images[-1]).abs().flatten(1).amax(1) > 1e-4
    assert changed.tolist() == [False, False, False, True]


def test_boxes_reach_the_image_through_masks_alone(trained: ImageGenerator, batch: Batch) -> None:
    moved = replace(batch, layout=replace(batch.layout, boxes=batch.layout.boxes * 0.5))
    assert torch.equal(_run(trained, moved).images[-1], _run(trained, batch).images[-1])


def test_all_layouts_empty_or_all_words_unknown(domain: Domain, batch: Batch) -> None:
    generator, layout = _generator(domain), batch.layout
    empty = replace(layout, count=torch.zeros_like(layout.count))
    unknown = batch.words.clamp_max(1)
    for words, given in ((batch.words, empty), (unknown, layout)):
        out = generator(_text(batch), words, given, _noise(batch))
        generator.zero_grad()
        (out.images[-1].mean() + out.object_context.sum()).backward()
        gradients = [p.grad for p in generator.parameters() if p.grad is not None]
        assert all(g.isfinite().all() for g in gradients) and out.images[-1].isfinite().all()


def _loss(out: ImageOutputs) -> Tensor:
    draw = torch.Generator().manual_seed(9)
    return sum(((image - torch.randn(image.shape, generator=draw)) ** 2).mean() for image in out.images)  # type: ignore[return-value]


@pytest.mark.parametrize("attention", ["cosine", "dot"])
def test_gradients_reach_every_parameter(domain: Domain, batch: Batch, attention: str) -> None:
    generator = _generator(domain, replace(TINY, sizes=(32, 64), attention=attention))  # type: ignore[arg-type]
    _loss(generator(_text(batch), batch.words, batch.layout, _noise(batch))).backward()
    dead = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []
    temperatures = [name for name, _ in generator.named_parameters() if "temperature" in name]
    assert len(temperatures) == (2 if attention == "cosine" else 0)


def test_word_and_label_vectors_are_frozen_but_saved(domain: Domain) -> None:
    generator = _generator(domain)
    assert {"word_vectors", "label_vectors"} <= set(generator.state_dict())
    assert not {"word_vectors", "label_vectors"} & dict(generator.named_parameters()).keys()
    other = _generator(domain, seed=1)
    other.load_state_dict(generator.state_dict())


def test_vectors_of_two_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in width"):
        ImageGenerator(TINY, torch.zeros(9, 16), torch.zeros(5, 8))
    with pytest.raises(ValueError, match="8 channels, the sizes 16"):
        ImageGenerator(MODULATED, torch.zeros(9, 8), torch.zeros(5, 8))


def test_weights_start_orthogonal(domain: Domain) -> None:
    generator = _generator(domain)
    layers = [m for m in generator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for weight in [layer.weight for layer in layers] + [s.layout.weight.transpose(0, 1) for s in generator.scenes]:
        rows = weight.detach().flatten(1)
        gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
        torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-4, rtol=0)


def test_conditioning_augmentation_by_hand(domain: Domain, batch: Batch) -> None:
    augmentation, noise = _generator(domain).augmentation, torch.randn(4, 4)
    code, mean, log_variance = augmentation(_text(batch).sentence, noise)
    torch.testing.assert_close(code, mean + log_variance.exp().sqrt() * noise)
    still, mean, _ = augmentation(_text(batch).sentence, torch.zeros(4, 4))
    assert torch.equal(still, mean)


def test_the_same_noise_gives_the_same_image_and_other_noise_another(either: ImageGenerator, batch: Batch) -> None:
    first, again = _run(either, batch), _run(either, batch)
    assert torch.equal(first.images[-1], again.images[-1])
    for part in (slice(0, 6), slice(6, 10)):  # z, conditioning augmentation
        noise = _noise(batch)
        noise[:, part] += 1
        with torch.no_grad():
            other = either(_text(batch), batch.words, batch.layout, noise)
        assert (other.images[-1] - first.images[-1]).abs().max() > 1e-3


def test_bf16_autocast_and_channels_last(either: ImageGenerator, batch: Batch) -> None:
    plain = _run(either, batch)
    last = _run(either.to(memory_format=torch.channels_last), batch)
    torch.testing.assert_close(last.images[-1], plain.images[-1], atol=1e-4, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        half = _run(either, batch)
    assert all(image.dtype == torch.float32 for image in half.images)
    assert half.mean.dtype == half.object_context.dtype == half.object_weights.dtype == torch.float32
    assert (half.images[-1] - plain.images[-1]).abs().mean() < 0.05


def test_the_trunk_stays_channels_last(domain: Domain, batch: Batch) -> None:
    generator = _generator(domain, replace(TINY, sizes=(32, 64))).to(memory_format=torch.channels_last)
    seen: list[bool] = []
    for scale in (generator.first, *generator.next):
        scale.blocks[0].register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
    _run(generator, batch)
    assert seen == [True, True]


def test_without_object_attention_c_obj_is_zero_and_all_else_is_as_large(domain: Domain, batch: Batch) -> None:
    plain, without = _generator(domain), _generator(domain, replace(TINY, object_attention=False))
    out = _run(without.eval(), batch)
    assert not out.object_context.any() and not out.object_weights.any()
    assert out.object_context.shape == (4, 4, 8) and out.label_vectors.any()
    ours, theirs = ({name: p.shape for name, p in g.named_parameters()} for g in (without, plain))
    assert ours == {name: shape for name, shape in theirs.items() if not (name[:6] == "scenes" and "attention" in name)}
    _loss(without.train()(_text(batch), batch.words, batch.layout, _noise(batch))).backward()
    assert [name for name, p in without.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_without_object_attention_words_reach_the_image_through_the_grid_alone(domain: Domain, batch: Batch) -> None:
    generator = _generator(domain, replace(TINY, sizes=(16,), object_attention=False)).eval()
    text = _text(batch)
    other = replace(text, words=(text.words + 1) * word_mask(batch)[:, None])
    assert torch.equal(_run(generator, batch, other).images[0], _run(generator, batch, text).images[0])


def test_without_layout_the_caption_alone_makes_the_image(domain: Domain, batch: Batch) -> None:
    generator = _generator(domain, replace(TINY, object_attention=False, layout=False))
    _loss(generator(_text(batch), batch.words, batch.layout, _noise(batch))).backward()
    assert [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert not [name for name in generator.state_dict() if name.startswith("scenes")]
    assert generator.first.blocks[0].block[0].in_channels == 8
    assert generator.next[0].blocks[0].block[0].in_channels == 16
    generator.eval()
    out, moved = _run(generator, batch), replace(batch, layout=batch.layout[torch.tensor([2, 3, 0, 1])])
    assert torch.equal(_run(generator, moved).images[-1], out.images[-1])
    assert out.object_context.shape == (4, 4, 8) and not out.object_context.any()
    text = _text(batch)
    words = replace(text, words=(text.words + 1) * word_mask(batch)[:, None])
    assert not torch.equal(_run(generator, batch, words).images[-1], out.images[-1])


def test_with_modulation_an_object_has_its_say_where_it_is_on_top(domain: Domain, batch: Batch) -> None:
    """At full size: another class changes the style of the object's own pixels alone."""
    generator = _generator(domain, MODULATED).eval()
    scene = generator._scene(_text(batch), batch.words, batch.layout)
    changed = replace(batch.layout, labels=(batch.layout.labels + 1) % 5 * batch.layout.valid)
    other = generator._scene(_text(batch), batch.words, changed)
    code = torch.zeros(len(batch), 10)
    first, second = (generator.scenes[-1](one, code).styles for one in (scene, other))
    assert first.shares.shape == (4, 5, 32, 32) and torch.equal(first.shares, second.shares)
    torch.testing.assert_close(first.shares.sum(1), torch.ones(4, 32, 32))
    assert torch.equal(first.vectors[:, 0], second.vectors[:, 0])
    assert (first.vectors[:, 1:] != second.vectors[:, 1:]).any(-1)[batch.layout.valid].all()
    assert not first.vectors[:, 1:][~batch.layout.valid].any()
    images = [_run(generator, one).images[-1] for one in (batch, replace(batch, layout=changed))]
    differs = (images[0] != images[1]).flatten(1).any(1)
    assert torch.equal(differs, batch.layout.count > 0)


def test_a_code_of_fixed_noise_is_the_normalised_sentence(domain: Domain, batch: Batch) -> None:
    out = _run(_generator(domain, MODULATED).eval(), batch)
    torch.testing.assert_close(out.mean.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.mean.square().mean(1), torch.ones(4), atol=1e-2, rtol=0)
    torch.testing.assert_close((0.5 * out.log_variance).exp(), torch.full((4, 4), 0.1))


def test_a_learned_class_embedding_is_painted_in_place_of_label_vectors(domain: Domain) -> None:
    plain, learned = _generator(domain), _generator(domain, replace(TINY, class_channels=5))
    assert plain.first.blocks[0].block[0].in_channels == 3 * 8 + 16
    assert learned.first.blocks[0].block[0].in_channels == 3 * 8 + 5
    assert _generator(domain, MODULATED).first.blocks[0].block[0].in_channels == 3 * 8 + 5 + 3
