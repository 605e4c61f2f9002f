"""The aesthetic filter with an untrained CLIP of the right width, and the published head where it is at hand."""

import json
import pickle

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from actors.filters.aesthetic import Aesthetic, AestheticConfig, content_hash
from actors.filters.base import RealImages
from actors.filters.chain import build_filters, fit_filters
from actors.filters.clip import Clip, ClipConfig, open_model
from actors.filters.quality_head import Head, degrade, fit_head, read_head
from actors.images import encode_png, read
from actors.records import WHOLE_IMAGE, Annotation, Candidate, Detections, Inspected, LabeledImage, Lineage

LINEAGE = Lineage(round=1, image_id="a", box_indices=(0,), generator="copy_paste", seed=1)
NOTHING = Detections(boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), scores=np.zeros(0, np.float32))


def inspected(pixels):
    candidate = Candidate(
        pixels=pixels,
        annotation=Annotation.empty(),
        drawn=np.zeros(0, np.bool_),
        painted=np.full(pixels.shape[:2], -1, np.int16),
        canvas="a",
        lineage=LINEAGE,
    )
    return Inspected(candidate=candidate, seen=NOTHING)


def scene(seed, size=(96, 128)):
    """A few sharp discs on a soft ground."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    picture = np.stack([90 + 40 * np.sin(rows / 29 + phase) for phase in rng.uniform(0, 6, 3)], axis=2)
    for _ in range(8):
        y, x, radius = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(5, 14)
        picture[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = rng.uniform(0, 255, 3)
    return picture.astype(np.uint8)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Twelve real images."""
    folder = tmp_path_factory.mktemp("real")
    for index in range(12):
        (folder / f"{index:02d}.png").write_bytes(encode_png(scene(index)))
    return [
        LabeledImage(id=file.name, uri=str(file), width=128, height=96, annotation=Annotation.empty())
        for file in sorted(folder.iterdir())
    ]


@pytest.fixture(scope="module")
def clip(tiny_clip):
    return ClipConfig(weights=f"local-dir:{tiny_clip}", batch_size=8)


def published_layers(width=768):
    """The predictor as its makers publish it: a sequence of layers without activations, their dropouts among them."""
    return torch.nn.Sequential(
        torch.nn.Linear(width, 1024),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(1024, 128),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(128, 64),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(64, 16),
        torch.nn.Linear(16, 1),
    ).eval()


@pytest.fixture(scope="module")
def own_head(tmp_path_factory):
    """A head of the published format with weights of its own, and the module that wrote it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = published_layers()
    file = tmp_path_factory.mktemp("head") / "head.pth"
    torch.save({f"layers.{name}": tensor for name, tensor in layers.state_dict().items()}, file)
    return file, layers


def unit_rows(count, width=768):
    rows = np.random.default_rng(0).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def judged(config, state, *pictures):
    """The verdicts, by a filter built from a state that went through JSON."""
    (filter_,) = build_filters([config], {config.kind: json.loads(json.dumps(state))})
    return [verdict for (verdict,) in filter_.judge([inspected(pixels) for pixels in pictures])]


# the head -------------------------------------------------------------------------------------------------------


def test_gen2det_sec_3_2_the_published_head_equals_its_formula(aesthetic_head):
    layers = published_layers()
    state = torch.load(aesthetic_head, map_location="cpu", weights_only=True)
    layers.load_state_dict({name.removeprefix("layers."): tensor for name, tensor in state.items()})
    rows = unit_rows(50)
    with torch.inference_mode():
        expected = layers(torch.from_numpy(rows))[:, 0].numpy()
    scores = read_head(str(aesthetic_head), 768).scores(rows)
    np.testing.assert_allclose(scores, expected, atol=2e-5)
    assert scores.std() > 0.1  # rows differ, so the head does not answer with its bias alone


def test_the_whole_score_is_the_formula_on_a_normalised_embedding(clip, own_head):
    file, layers = own_head
    pictures = [scene(seed) for seed in range(3)]
    model = open_model(clip)
    with torch.inference_mode():
        raw = torch.cat([model._model.encode_image(model._transform(_pil(one))[None]) for one in pictures])
        expected = layers(raw / raw.norm(dim=1, keepdim=True))[:, 0].numpy()
    np.testing.assert_allclose(read_head(str(file), 768).scores(model.embed_images(pictures)), expected, atol=2e-5)


def _pil(pixels):
    from PIL import Image

    return Image.fromarray(pixels)


def test_a_head_for_another_model_is_refused(own_head):
    with pytest.raises(ValueError, match=r"embeddings of 512 numbers .* head: fitted"):
        read_head(str(own_head[0]), 512)


def test_a_head_with_a_layer_missing_is_refused(own_head, tmp_path):
    tensors = torch.load(own_head[0], weights_only=True)
    torch.save({name: tensor for name, tensor in tensors.items() if "7" not in name}, tmp_path / "head.pth")
    with pytest.raises(ValueError, match=r"layers\.7\.weight"):
        read_head(str(tmp_path / "head.pth"), 768)


class Evil:
    def __reduce__(self):
        return (print, ("code of the file was run",))


def test_code_in_a_head_file_is_not_run(tmp_path, capsys):
    for number, write in enumerate((lambda path: torch.save(Evil(), path), _pickle)):
        write(tmp_path / f"{number}.pth")
        with pytest.raises(ValueError, match="no file of tensors"):
            read_head(str(tmp_path / f"{number}.pth"), 768)
    assert capsys.readouterr().out == ""


def _pickle(path):
    path.write_bytes(pickle.dumps(Evil()))


def test_without_a_head_the_config_says_how_to_get_one(tmp_path):
    with pytest.raises(ValidationError, match=r"sac\+logos\+ava1-l14-linearMSE\.pth.*improved-aesthetic-predictor"):
        AestheticConfig()
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.pth.*improved-aesthetic-predictor"):
        read_head(str(tmp_path / "none.pth"), 768)


# the threshold --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "fitted"])
def test_gen2det_sec_3_2_the_threshold_equals_the_mean_of_the_real_scores(real, clip, own_head, kind):
    config = AestheticConfig(head=str(own_head[0]) if kind == "file" else "fitted", clip=clip)
    state = config.fit(RealImages(train=real))
    verdicts = judged(config, state, *[read(image.uri) for image in real])
    scores = [verdict.score for verdict in verdicts]
    assert len(set(scores)) == len(real)
    assert state["threshold"] == np.mean(scores)
    assert [verdict.keep for verdict in verdicts] == [score >= np.mean(scores) for score in scores]
    assert {(v.box, v.threshold, v.reason) for v in verdicts if not v.keep} == {
        (WHOLE_IMAGE, state["threshold"], "unaesthetic")
    }


def test_gen2det_sec_3_2_with_the_published_head(real, clip, aesthetic_head):
    config = AestheticConfig(head=str(aesthetic_head), clip=clip)
    state = config.fit(RealImages(train=real))
    scores = [verdict.score for verdict in judged(config, state, *[read(image.uri) for image in real])]
    assert state["threshold"] == np.mean(scores)
    assert state["head"] is None


def test_a_quantile_takes_the_place_of_the_mean(real, clip, own_head):
    config = AestheticConfig(head=str(own_head[0]), clip=clip, quantile=0.25)
    state = config.fit(RealImages(train=real))
    assert state["threshold"] == np.quantile(list(state["scores"].values()), 0.25)
    assert sum(verdict.keep for verdict in judged(config, state, *[read(image.uri) for image in real])) == 9


# scores by content ----------------------------------------------------------------------------------------------


def test_known_pictures_are_not_scored_again(real, clip, own_head, monkeypatch):
    config = AestheticConfig(head=str(own_head[0]), clip=clip)
    state = config.fit(RealImages(train=real))
    filter_ = Aesthetic(config, state)
    shown = []
    embed = Clip.embed_images
    monkeypatch.setattr(Clip, "embed_images", lambda self, images: embed(self, [shown.append(1) or p for p in images]))
    known, new = read(real[0].uri), scene(50)
    filter_.judge([inspected(known)])
    assert not shown
    first = filter_.judge([inspected(new), inspected(new.copy()), inspected(known)])
    assert len(shown) == 1
    assert filter_.judge([inspected(new), inspected(new), inspected(known)]) == first
    assert len(shown) == 1


def test_pictures_of_equal_bytes_and_other_shapes_have_other_hashes():
    flat = np.arange(48, dtype=np.uint8)
    assert content_hash(flat.reshape(4, 4, 3)) != content_hash(flat.reshape(2, 8, 3))
    assert content_hash(flat.reshape(4, 4, 3)) == content_hash(flat.reshape(4, 4, 3)[:].copy())


def test_scores_depend_on_the_batch_by_rounding_only(real, clip, own_head):
    config = AestheticConfig(head=str(own_head[0]), clip=clip)
    state = config.fit(RealImages(train=real))
    pictures = [scene(seed, (64 + 4 * seed, 96)) for seed in range(20, 31)]
    together = [verdict.score for verdict in judged(config, state, *pictures)]
    alone = [judged(config, state, one)[0].score for one in pictures]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_a_head_that_changes_under_a_run_is_noticed(real, clip, own_head, tmp_path):
    file = tmp_path / "head.pth"
    file.write_bytes(own_head[0].read_bytes())
    config = AestheticConfig(head=str(file), clip=clip)
    state = config.fit(RealImages(train=real))
    tensors = torch.load(file, weights_only=True)
    tensors["layers.7.bias"] += 1
    torch.save(tensors, file)
    with pytest.raises(ValueError, match="has changed since"):
        judged(config, state, scene(50))


def test_without_images_it_says_so(clip, own_head):
    with pytest.raises(ValueError, match="0 real training images: too few"):
        fit_filters([AestheticConfig(head=str(own_head[0]), clip=clip)], RealImages(train=[]))


# the head that is fitted ----------------------------------------------------------------------------------------


def test_a_fitted_head_ranks_fresh_degraded_embeddings_below_fresh_real_ones():
    """Real and degraded differ by 3 standard deviations in one of 50 numbers: no rank is wrong in more than 5 %."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 60, 5, 50)).astype(np.float32)
    noise[:, :, 0, 7] += 3
    (real, fresh), (bad, worse) = noise[:, :, 0], noise[:, :, 1:]
    head, scores = fit_head(real, bad)
    assert (head.scores(fresh)[:, None] > head.scores(worse.reshape(-1, 50))[None]).mean() > 0.95
    assert 0.3 < (head.scores(fresh) >= scores.mean()).mean() < 0.7  # the mean of the real ones parts fresh ones in two


def test_fits_are_equal_and_do_not_depend_on_the_order(real, clip):
    config = AestheticConfig(head="fitted", clip=clip)
    assert fit_filters([config], RealImages(train=real)) == fit_filters([config], RealImages(train=real[::-1]))


def test_real_images_are_scored_by_heads_that_have_not_seen_them():
    """Of noise nothing can be learnt: a head flatters what it was fitted on, and out of fold it must not."""
    rng = np.random.default_rng(0)
    real, bad = rng.normal(size=(40, 100)).astype(np.float32), rng.normal(size=(40, 4, 100)).astype(np.float32)
    head, scores = fit_head(real, bad)
    spread = head.scores(bad.reshape(-1, 100)).std()
    assert head.scores(real).mean() - head.scores(bad.reshape(-1, 100)).mean() > spread
    assert abs(scores.mean()) < spread


def test_a_fitted_head_survives_json():
    head, _ = fit_head(unit_rows(20, 16), unit_rows(80, 16).reshape(20, 4, 16))
    back = Head.from_plain(json.loads(json.dumps(head.plain())))
    assert back.identity == head.identity
    assert np.array_equal(back.scores(unit_rows(5, 16)), head.scores(unit_rows(5, 16)))


@pytest.mark.parametrize("size", [(480, 640), (97, 131), (9, 12)])
def test_degraded_pictures_keep_their_size_and_are_drawn_from_their_seed(size):
    pixels = scene(0, size)
    versions = degrade(pixels, 1, 32)
    assert [one.shape for one in versions] == [pixels.shape] * 4
    assert all(not np.array_equal(one, pixels) for one in versions)
    assert all(np.array_equal(*pair) for pair in zip(versions, degrade(pixels, 1, 32), strict=True))
    assert sorted(versions[3].ravel()) == sorted(pixels.ravel())  # shuffling moves pixels and changes none


# the model ------------------------------------------------------------------------------------------------------


def test_a_file_and_a_folder_of_the_same_weights_embed_alike(tiny_clip, clip):
    from_file = Clip(ClipConfig(model="tiny-clip", weights=str(tiny_clip / "open_clip_model.safetensors")))
    pictures = [scene(1), scene(2)]
    assert from_file.identity == open_model(clip).identity
    np.testing.assert_allclose(from_file.embed_images(pictures), open_model(clip).embed_images(pictures), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(from_file.embed_images(pictures), axis=1), 1.0, atol=1e-6)


def test_missing_weights_are_named_with_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match=r"'openai' of ViT-B-32-quickgelu is not in this machine's cache.*HF_HOME"
    ):
        Clip(ClipConfig(model="ViT-B-32-quickgelu"))


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"model": "ViT-Z"}, ValueError, "open_clip has no 'ViT-Z'"),
        ({"weights": "nowhere.safetensors"}, FileNotFoundError, r"no local file .*releases: \['openai'"),
        ({"weights": "local-dir:nowhere"}, FileNotFoundError, "no local file or folder"),
    ],
)
def test_wrong_names_are_explained(keys, error, message):
    with pytest.raises(error, match=message):
        Clip(ClipConfig(**keys))


def test_weights_of_another_model_or_with_code_are_refused(tiny_clip, tmp_path):
    with pytest.raises(ValueError, match="does not load into RN50"):
        Clip(ClipConfig(model="RN50", weights=str(tiny_clip / "open_clip_model.safetensors")))
    _pickle(tmp_path / "clip.pt")
    with pytest.raises(ValueError, match="pickled code"):
        Clip(ClipConfig(model="tiny-clip", weights=str(tmp_path / "clip.pt")))


def test_a_folder_without_weights_is_no_model(tiny_clip, tmp_path):
    (tmp_path / "open_clip_config.json").write_bytes((tiny_clip / "open_clip_config.json").read_bytes())
    with pytest.raises(ValueError, match="does not load"):
        Clip(ClipConfig(weights=f"local-dir:{tmp_path}"))
