"""Layout prompts: corners to tokens and back, what fits the budget, and tokenizers that know the new words."""

import gzip
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import bytes_to_unicode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerFast

from actors.generators.layout.prompt import (
    LayoutPromptConfig,
    PromptWriter,
    class_words,
    extend_vocabulary,
    flipped,
    located,
    location_embeddings,
    locations,
    object_states,
    word_tokenizer,
)
from actors.records import Annotation, Difficulty

torch.set_num_threads(1)

CLASSES = ("person", "traffic_light")
SMALL = LayoutPromptConfig(grid=(8, 4))


def annotation(boxes, labels=None, ignore=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.array(labels, np.int64)
    return Annotation(boxes=boxes, labels=labels, ignore=np.zeros(len(boxes), bool) if ignore is None else ignore)


def random_boxes(rng, num_boxes, width, height):
    corners = np.sort(rng.uniform(0, 1, (num_boxes, 2, 2)), axis=1) * (width, height)
    return corners.reshape(-1, 4).astype(np.float32)


def written(config, layout, tokenizer=None, difficulties=None, seed=0, size=(64, 32)):
    writer = PromptWriter(config, CLASSES, tokenizer or word_tokenizer(config, CLASSES))
    told = difficulties or [Difficulty.EASY] * len(layout)
    return writer.write(layout, *size, told, np.random.default_rng(seed))


# --- GeoDiffusion, arXiv 2306.04607, Sec. 3.2: corners and tokens


def test_tokens_by_hand_geodiffusion_eqs_3_and_4():
    # 64 x 32 px, 8 x 4 bins of 8 px: (9, 17) lies in column 1, row 2; (64, 32) is the image's own corner
    assert locations(np.array([[9, 17, 64, 32]], np.float32), 64, 32, (8, 4)).tolist() == [[2 * 8 + 1, 3 * 8 + 7]]
    assert locations(np.array([[0, 0, 15.9, 16]], np.float32), 64, 32, (8, 4)).tolist() == [[0, 2 * 8 + 1]]
    assert locations(np.array([[-5, -5, 99, 99]], np.float32), 64, 32, (8, 4)).tolist() == [[0, 31]]
    assert located(np.array([[17, 31]]), 64, 32, (8, 4)).tolist() == [[12, 20, 60, 28]]


@pytest.mark.parametrize("grid", [(32, 32), (8, 4), (100, 57), (1, 1), (256, 256)])
def test_round_trip_within_half_a_bin_geodiffusion_sec_3_2(grid):
    boxes = random_boxes(np.random.default_rng(0), 500, 640, 427)
    boxes = np.concatenate([boxes, np.array([[0, 0, 640, 427]], np.float32)])
    back = located(locations(boxes, 640, 427, grid), 640, 427, grid)
    half = np.array([640 / grid[0] / 2, 427 / grid[1] / 2] * 2)
    assert (np.abs(back - boxes) <= half + 1e-3).all()
    assert np.abs(back - boxes).max() > 0.9 * half.min()


def test_every_bin_has_a_token_of_its_own():
    tokens = np.stack([np.arange(32), np.arange(32)], axis=1)
    assert (locations(located(tokens, 640, 427, (8, 4)), 640, 427, (8, 4)) == tokens).all()


def test_a_flipped_picture_and_flipped_boxes_agree_before_tokenising():
    pixels, box = np.zeros((32, 64), bool), [6, 4, 20, 28]
    pixels[4:28, 6:20] = True
    mirrored = flipped(annotation([box]), 64)
    left, top, right, bottom = mirrored.boxes[0].astype(int)
    assert (left, top, right, bottom) == (44, 4, 58, 28)
    assert pixels[:, ::-1][top:bottom, left:right].all()
    assert pixels.sum() == (right - left) * (bottom - top)
    # columns of 8 px: 6 and 20 lie in 0 and 2, their mirror images 58 and 44 in 7 and 5
    assert locations(mirrored.boxes, 64, 32, (8, 4)).tolist() == [[5, 3 * 8 + 7]]
    twice = flipped(mirrored, 64)
    assert (twice.boxes == np.array([box])).all()


# --- the sentence


def test_the_sentence_detdiffusion_fig_3():
    layout = annotation([[9, 17, 63, 31], [0, 0, 8, 8]], labels=[1, 0])
    told = [Difficulty.HARD, Difficulty.EASY]
    prompt = written(SMALL, layout, difficulties=told, seed=0)
    parts = {0: "traffic light <17> <31> [hard]", 1: "person <0> <9> [easy]"}
    assert prompt.text == " ".join(["An image with", *(parts[index] for index in prompt.kept)])
    assert sorted(prompt.kept) == [0, 1]
    plain = SMALL.model_copy(update={"attribute": False})
    assert "[" not in written(plain, layout, difficulties=told).text
    assert "[hard]" not in word_tokenizer(plain, CLASSES).get_vocab()


def test_an_image_without_objects_is_the_prefix():
    prompt = written(SMALL, annotation([]))
    assert (prompt.text, prompt.kept, prompt.spans, prompt.num_cut) == ("An image with", (), (), 0)


def test_order_is_drawn_anew_and_ignored_boxes_are_left_out():
    boxes = random_boxes(np.random.default_rng(1), 6, 64, 32)
    layout = annotation(boxes, ignore=np.arange(6) == 2)
    orders = {written(SMALL, layout, seed=seed).kept for seed in range(20)}
    assert len(orders) > 10
    assert {frozenset(order) for order in orders} == {frozenset({0, 1, 3, 4, 5})}
    assert written(SMALL, layout, seed=3) == written(SMALL, layout, seed=3)


def test_class_names_become_words():
    assert class_words(["traffic_light", "hot-dog", " T-shirt_ "]) == ("traffic light", "hot dog", "T shirt")
    with pytest.raises(ValueError, match="words of its own"):
        class_words(["hot-dog", "Hot_Dog"])
    with pytest.raises(ValueError, match="words of its own"):
        class_words(["--"])


# --- the budget


@pytest.fixture(scope="module")
def clip_tokenizer():
    """CLIP's own byte-pair vocabulary, which open_clip brings along."""
    file = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(file.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocabulary, [tuple(merge.split()) for merge in merges], model_max_length=77)


def text_encoder(num_words, size=16):
    torch.manual_seed(0)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=num_words, hidden_size=size, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
    )


@pytest.fixture(scope="module")
def extended(clip_tokenizer):
    """CLIP's tokenizer and a tiny encoder that know the small layout, and the embeddings before."""
    encoder = text_encoder(len(clip_tokenizer))
    before = encoder.get_input_embeddings().weight.detach().clone()
    assert extend_vocabulary(clip_tokenizer, encoder, SMALL) == 8 * 4 + 2
    return clip_tokenizer, encoder, before


@pytest.mark.parametrize(("label", "attribute", "fit"), [(1, True, 14), (0, True, 18), (1, False, 18), (0, False, 24)])
def test_as_many_objects_as_77_tokens_hold(extended, label, attribute, fit):
    """5 tokens an object of a two-token class, 3 for the prefix and 2 for the ends: 14 fit; 18 without attribute."""
    config = SMALL.model_copy(update={"attribute": attribute})
    layout = annotation(random_boxes(np.random.default_rng(0), 30, 64, 32), labels=[label] * 30)
    prompt = written(config, layout, extended[0])
    assert (len(prompt.kept), prompt.num_cut) == (fit, 30 - fit)
    assert len(extended[0](prompt.text).input_ids) <= 77


def test_a_budget_that_is_met_exactly_is_used():
    layout = annotation(random_boxes(np.random.default_rng(0), 3, 64, 32))
    for max_tokens, fit in ((17, 3), (16, 2), (13, 2), (12, 1)):  # 5 for prefix and ends, 4 an object
        config = SMALL.model_copy(update={"max_tokens": max_tokens})
        assert len(written(config, layout).kept) == fit
    with pytest.raises(ValueError, match="shorten it"):
        written(LayoutPromptConfig(prefix="a b c d e f g h", max_tokens=8), layout)


@pytest.mark.parametrize("kind", ["clip", "words"])
def test_spans_are_where_the_tokens_are(extended, kind):
    tokenizer = extended[0] if kind == "clip" else word_tokenizer(SMALL, CLASSES)
    layout = annotation(random_boxes(np.random.default_rng(0), 30, 64, 32), labels=np.arange(30) % 2)
    prompt = written(SMALL, layout, tokenizer, [Difficulty.HARD, Difficulty.EASY] * 15)
    ids = tokenizer(prompt.text, padding="max_length", max_length=77, truncation=True).input_ids
    corners = locations(layout.boxes, 64, 32, SMALL.grid)
    assert len(ids) == 77
    for index, (start, stop) in zip(prompt.kept, prompt.spans, strict=True):
        *name, first, second, attribute = tokenizer.convert_ids_to_tokens(ids[start:stop])
        assert " ".join(name).replace("</w>", "") == class_words(CLASSES)[layout.labels[index]]
        assert [first, second] == [f"<{corner}>" for corner in corners[index]]
        assert attribute == ("[easy]" if index % 2 else "[hard]")
    assert ids[prompt.spans[-1][1]] == tokenizer.eos_token_id


def test_object_states_are_means_over_their_tokens():
    states = torch.arange(2 * 77 * 3, dtype=torch.float32).view(2, 77, 3)
    prompts = [written(SMALL, annotation([[0, 0, 8, 8], [8, 8, 16, 16]])), written(SMALL, annotation([]))]
    means, valid = object_states(states, prompts)
    start, stop = prompts[0].spans[1]
    assert (start, stop) == (8, 12)
    assert torch.allclose(means[0, 1], states[0, 8:12].mean(dim=0))
    assert valid.tolist() == [[True, True], [False, False]]
    assert (means[1] == 0).all()


# --- vocabularies


def test_each_new_token_is_one_id(extended):
    tokenizer = extended[0]
    new = [*SMALL.location_tokens, *SMALL.attribute_tokens]
    ids = tokenizer(new, add_special_tokens=False).input_ids
    assert [len(one) for one in ids] == [1] * len(new)
    assert len({one[0] for one in ids}) == len(new)
    assert tokenizer("person <17>person", add_special_tokens=False).input_ids.count(ids[17][0]) == 1


def test_extension_keeps_the_words_and_places_the_bins_geodiffusion_sec_3_2(extended):
    tokenizer, encoder, before = extended
    weight = encoder.get_input_embeddings().weight
    assert torch.equal(weight[: len(before)], before)
    assert weight.requires_grad
    places = weight[tokenizer.convert_tokens_to_ids(list(SMALL.location_tokens))].detach()
    norms = places.norm(dim=1)
    assert torch.allclose(norms, before.norm(dim=1).mean().expand(32), rtol=1e-4)
    waves = torch.from_numpy(location_embeddings(SMALL.grid, 16))
    assert torch.allclose(places / norms[:, None], waves / waves.norm(dim=1, keepdim=True), atol=1e-5)
    hard = tokenizer("hard", add_special_tokens=False).input_ids[0]
    assert torch.equal(weight[tokenizer.convert_tokens_to_ids("[hard]")], before[hard])
    tokens = tokenizer(["An image with person <3> <31> [hard]"], return_tensors="pt")
    encoder(tokens.input_ids).last_hidden_state.sum().backward()
    assert weight.grad[tokenizer.convert_tokens_to_ids("<31>")].abs().sum() > 0


def test_sine_cosine_by_hand():
    # a grid of 2 columns and 2 rows, 8 numbers: frequencies 1 and 1/100; bin 1 is x 1, y 0
    waves = location_embeddings((2, 2), 8)
    assert waves[1] == pytest.approx([np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01), 0, 0, 1, 1])
    assert waves[2] == pytest.approx([0, 0, 1, 1, np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)])
    with pytest.raises(ValueError, match="multiple of 4"):
        location_embeddings((2, 2), 6)


def test_a_saved_pair_is_not_taught_again(extended, tmp_path):
    tokenizer, encoder, _ = extended
    tokenizer.save_pretrained(tmp_path)
    encoder.save_pretrained(tmp_path)
    again, loaded = CLIPTokenizer.from_pretrained(tmp_path), CLIPTextModel.from_pretrained(tmp_path)
    with torch.no_grad():
        loaded.get_input_embeddings().weight.add_(1.0)  # something was learned
    learned = loaded.get_input_embeddings().weight.detach().clone()
    assert extend_vocabulary(again, loaded, SMALL) == 0
    assert torch.equal(loaded.get_input_embeddings().weight, learned)
    text = "An image with traffic light <3> <31> [hard]"
    assert again(text).input_ids == tokenizer(text).input_ids
    with pytest.raises(ValueError, match="another grid"):
        extend_vocabulary(again, loaded, LayoutPromptConfig(grid=(8, 8)))


def test_what_does_not_go_together_is_refused():
    tokenizer = word_tokenizer(SMALL, CLASSES)
    with pytest.raises(ValueError, match="lacks 32 tokens"):
        PromptWriter(LayoutPromptConfig(grid=(8, 8)), CLASSES, tokenizer)
    with pytest.raises(ValueError, match="reads at most 77"):
        extend_vocabulary(tokenizer, text_encoder(8), SMALL.model_copy(update={"max_tokens": 78}))


def test_the_small_tokenizer_is_used_saved_and_loaded_as_clips_is(tmp_path):
    tokenizer = word_tokenizer(SMALL, CLASSES)
    assert len(tokenizer) == 3 + 3 + 3 + 32 + 2  # ends and padding, prefix, class words, bins, attributes
    text = "An image with Traffic light <17> <31> [hard]"
    encoded = tokenizer([text, ""], padding="max_length", max_length=12, truncation=True, return_tensors="pt")
    assert encoded.input_ids.shape == (2, 12)
    words = tokenizer.convert_ids_to_tokens(encoded.input_ids[0])
    assert words == ["<bos>", *text.lower().split(), "<eos>", "<pad>", "<pad>"]
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids[1])[:3] == ["<bos>", "<eos>", "<pad>"]
    tokenizer.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    again = loaded([text, ""], padding="max_length", max_length=12, truncation=True, return_tensors="pt")
    assert torch.equal(again.input_ids, encoded.input_ids)
    assert (loaded.model_max_length, loaded.pad_token, len(loaded)) == (77, "<pad>", len(tokenizer))
    assert extend_vocabulary(loaded, text_encoder(len(loaded)), SMALL) == 0
    with pytest.raises(Exception, match="WordLevel"):
        tokenizer("dragon")
