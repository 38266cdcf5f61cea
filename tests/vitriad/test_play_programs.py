"""`vitriad play` of exported programs: what each purpose shows, and which are refused."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from vit_core.errors import InputError
from vit_core.limits import LIMITS
from vitriad import export, models
from vitriad.playing.players import open_player

THREE = next(file for file in models.digit_files() if file.name.startswith("3")).read_bytes()


def exported(tmp_path, model, to, **options):
    export(model, tmp_path / to, to, **options)
    return str(tmp_path / to)


def seen(name, *backend):
    player = open_player(name, *backend)
    return player, player.seen(player.read(THREE, LIMITS))


def drawn(url):
    content = base64.b64decode(url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


@pytest.mark.every_day("None")
@pytest.mark.parametrize("preprocessing", [None, "nhwc"])
def test_a_classifier_gives_the_scores_of_its_checkpoint(tmp_path, preprocessing):
    name = exported(tmp_path, "digits-vit", "onnx", preprocessing=preprocessing)
    player, answer = seen(name, "onnx")
    assert (player.kind, player.about()["backends"], {*answer}) == ("classifier", ["onnx"], {"picture", "classes"})
    _, want = seen("digits-vit", "torch")
    got, want = ({row["label"]: row["scores"][0] for row in each["classes"]["rows"]} for each in (answer, want))
    assert [*got] == [*want]
    np.testing.assert_allclose([*got.values()], [*want.values()], atol=1e-5)
    assert answer["classes"]["difference"] is None


@pytest.mark.long
@pytest.mark.parametrize("purpose", ["attentions", "features"])
def test_an_encoder_shows_what_it_returns(tmp_path, purpose):
    player, answer = seen(exported(tmp_path, "digits-vit", "pt2", outputs=purpose))
    _, want = seen("digits-vit", "torch")
    assert (player.kind, player.about()["backends"]) == ("encoder", [])
    if purpose == "features":
        assert answer["maps"] is None
        np.testing.assert_allclose(drawn(answer["features"]), drawn(want["features"]), atol=2)
    else:
        assert answer["features"] is None and answer["maps"]["peaks"] == want["maps"]["peaks"]
        np.testing.assert_allclose(drawn(answer["maps"]["strip"]), drawn(want["maps"]["strip"]), atol=4)


def test_programs_that_the_page_cannot_show_are_refused(tmp_path):
    name = exported(tmp_path, "digits-vit-mae", "pt2")
    with pytest.raises(InputError, match=r"a program of reconstruction, which the page cannot show\.\nGive the check"):
        open_player(name)
    with pytest.raises(InputError, match="--revision is for checkpoints"):
        open_player(name, revision="main")


@pytest.mark.long
def test_an_engine_of_another_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="is an exported program of onnx, got 'pt2'"):
        open_player(exported(tmp_path, "digits-vit", "onnx"), "pt2")
