"""`vitriad embed` and `vitriad.Embedder`: features of many images, bad ones left out, interrupted runs that go on."""

import io
import json
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from backends import INSTALLED
from PIL import Image

import vitriad
from vit_core import ViTConfig
from vit_core.errors import InputError, MissingFileError
from vit_core.images.sources import ImageSource, image_sources
from vit_core.installing import install_command
from vit_core.tensors import to_numpy
from vitriad import embed, models, viewing
from vitriad.cli import main
from vitriad.feature_files import read_features, read_shard
from vitriad.features import Embedder

DIGITS = list(map(str, models.digit_files()))
FEATURES = ("class_token", "patch_mean", "patch_tokens")


@pytest.fixture(scope="module")
def embedder():
    return Embedder("digits-vit", INSTALLED[0])


@pytest.fixture(scope="module")
def everything():
    return Embedder("digits-vit", INSTALLED[0], features=FEATURES, layers=(-1, 0, 2))


@pytest.mark.every_day("torch", "digits-vit-tf", "digits-vit-flax")
@pytest.mark.parametrize("backend", INSTALLED)
@pytest.mark.parametrize("name", models.NAMES)
def test_features_are_those_of_the_model(backend, name):
    found = Embedder(name, backend, features=FEATURES, layers=(-1, 1))({"path": np.array(DIGITS[:3]), "id": [1, 2, 3]})
    model = viewing.load_encoder(name, backend)
    processor = vitriad.AutoImageProcessor.from_pretrained(models.find(name))
    pixels = processor([vitriad.open_image(path) for path in DIGITS[:3]], return_tensors="np")["pixel_values"]
    options = {"mask_ratio": 0.0} if name.endswith("mae") else {}
    output = model(pixel_values=pixels, output_hidden_states=True, **options)
    last, first = to_numpy(output.last_hidden_state), to_numpy(output.hidden_states[1])
    assert [*found] == ["path", "id", *FEATURES, *(f"layer_1.{kind}" for kind in FEATURES)]
    for tokens, prefix in ((last, ""), (first, "layer_1.")):
        np.testing.assert_array_equal(found[f"{prefix}class_token"], tokens[:, 0])
        np.testing.assert_array_equal(found[f"{prefix}patch_tokens"], tokens[:, 1:])
        np.testing.assert_allclose(found[f"{prefix}patch_mean"], tokens[:, 1:].mean(axis=1), atol=1e-6)


def test_an_embedder_travels(embedder):
    again = pickle.loads(pickle.dumps(embedder))
    pixels = np.stack([again.read(path) for path in DIGITS[:2]])
    np.testing.assert_array_equal(
        again({"pixel_values": pixels})["class_token"], embedder({"path": DIGITS[:2]})["class_token"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": ("poetry",)}, "features: expected some of class_token"),
        ({"features": ()}, "got nothing"),
        ({"layers": (9,)}, "layers: expected some of -1, 0, 1, 2, 3, got 9"),
        ({"layers": ()}, "layers: .* got nothing"),
        ({"dtype": "int8"}, "dtype: expected float32 or float16"),
    ],
)
def test_what_there_is_not_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Embedder("digits-vit", INSTALLED[0], **options)


def test_a_batch_without_images_is_refused(embedder):
    with pytest.raises(InputError, match="expected pixel_values or path, got id"):
        embedder({"id": [1]})


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".parquet"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_format_holds_the_same(suffix, dtype, tmp_path, embedder):
    embedder = Embedder("digits-vit", INSTALLED[0], dtype=dtype)
    out = tmp_path / f"out{suffix}"
    assert embed.embed(embedder, image_sources(DIGITS), out, batch_size=8)[:2] == (0, len(DIGITS))
    names, columns = read_features(out)
    assert names == DIGITS
    (found,) = columns.values()
    assert found.dtype == dtype
    expected = embedder({"path": DIGITS})["class_token"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 if dtype == "float32" else 1e-2)
    assert {path.suffix for path in tmp_path.iterdir()} == {suffix, *([".txt", ".json"] if suffix == ".npy" else [])}


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_several_features_and_layers_keep_their_shapes(suffix, tmp_path, everything):
    out = tmp_path / f"out{suffix}"
    embed.embed(everything, image_sources(DIGITS[:5]), out, batch_size=2)
    columns = read_features(out)[1]
    expected = everything({"path": DIGITS[:5]})
    assert [*columns] == [*everything.names]
    for name, array in columns.items():
        assert array.shape == expected[name].shape
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["two\nlines.png", '"quoted".png', "ünï.png", "sp ace.png"])
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".parquet"])
def test_names_of_any_kind_come_back(name, suffix, tmp_path, embedder):
    shutil.copy(DIGITS[0], tmp_path / name)
    embed.embed(embedder, [ImageSource(str(tmp_path / name))], tmp_path / f"out{suffix}", batch_size=1)
    assert read_features(tmp_path / f"out{suffix}")[0] == [str(tmp_path / name)]


# --- bad images, and runs that stop ----------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    """A folder of 40 images, six of them bad; shards of 8, so that there are five."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for i in range(40):
        shutil.copy(DIGITS[i % len(DIGITS)], folder / f"{i:02}.png")
    content = (folder / "00.png").read_bytes()
    (folder / "03.png").write_bytes(b"")
    (folder / "09.png").write_bytes(content[:60])
    (folder / "10.png").write_bytes(b"GIF89a nothing")
    (folder / "20.png").unlink()
    (folder / "20.png").symlink_to(folder / "nowhere")
    (folder / "21.png").unlink()
    (folder / "21.png").mkdir()
    Image.new("RGB", (1, 70000)).save(folder / "39.png")
    monkeypatch.setattr(embed, "_SHARD_IMAGES", 8)
    return [ImageSource(str(path)) for path in sorted(folder.iterdir())]


BAD = ["03.png", "09.png", "10.png", "20.png", "21.png", "39.png"]


def test_bad_images_are_recorded_and_the_rest_is_as_without_them(mixed, tmp_path, embedder, capsys):
    out, clean = tmp_path / "out.npz", tmp_path / "clean.npz"
    assert embed.embed(embedder, mixed, out, batch_size=4)[:2] == (6, 34)
    records = [json.loads(line) for line in (tmp_path / "out.npz.skipped.jsonl").read_text().splitlines()]
    assert [record["name"].rpartition("/")[2] for record in records] == BAD
    assert all(record["error"].startswith(record["name"]) for record in records)
    assert capsys.readouterr().err.count("vitriad: skipped") == 6
    good = [source for source in mixed if source.name.rpartition("/")[2] not in BAD]
    embed.embed(embedder, good, clean, batch_size=4)
    names, columns = read_features(out)
    assert names == read_features(clean)[0]
    np.testing.assert_array_equal(columns["class_token"], read_features(clean)[1]["class_token"])
    assert not (tmp_path / "clean.npz.skipped.jsonl").exists()


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".parquet"])
def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(suffix, mixed, tmp_path, embedder, monkeypatch):
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    embed.embed(embedder, mixed, whole, batch_size=4)
    make, made = embed.shard_of, []

    def stopped(*arguments):
        if len(made) % 2:  # every second shard stops the run
            made.append("stopped")
            raise KeyboardInterrupt
        made.append("made")
        return make(*arguments)

    monkeypatch.setattr(embed, "shard_of", stopped)
    for _ in range(9):
        try:
            found = embed.embed(embedder, mixed, out, batch_size=4)
            break
        except KeyboardInterrupt:
            assert not out.exists() and (tmp_path / f"out{suffix}.parts").is_dir()
    assert found[:2] == (6, 34) and made.count("made") == 5 and made.count("stopped") == 4
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / f"out{suffix}.parts").exists()


def test_a_run_that_stopped_at_the_very_end_is_finished(mixed, tmp_path, embedder, monkeypatch):
    out = tmp_path / "out.npz"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        embed.embed(embedder, mixed, out, batch_size=4)
    old = out.read_bytes()
    assert embed.embed(embedder, mixed, out, batch_size=4)[:2] == (6, 34)
    assert out.read_bytes() == old and not (tmp_path / "out.npz.parts").exists()


def test_an_interrupted_run_with_other_settings_is_not_mixed(mixed, tmp_path, embedder, everything, monkeypatch):
    out = tmp_path / "out.npz"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(embed, "_finished", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        embed.embed(embedder, mixed, out, batch_size=4)
    for arguments, differs in (((everything, mixed), "columns"), ((embedder, mixed[1:]), "images, count")):
        with pytest.raises(InputError, match=f"an interrupted run that differs in: {differs}"):
            embed.embed(*arguments, out, batch_size=4)
    with pytest.raises(InputError, match="differs in: batch"):
        embed.embed(embedder, mixed, out, batch_size=2)
    (tmp_path / "out.npz.parts" / "run.json").write_text("{")
    with pytest.raises(InputError, match="differs in"):
        embed.embed(embedder, mixed, out)
    assert embed.embed(embedder, mixed[:2], out, batch_size=1, force=True)[:2] == (0, 2)
    with pytest.raises(InputError, match="something is there already"):
        embed.embed(embedder, mixed[:2], out, batch_size=1)


def test_a_full_disk_keeps_the_shards_that_are_done(mixed, tmp_path, embedder, monkeypatch):
    out, write, written = tmp_path / "out.npz", embed.write_shard, []

    def full(path, columns):
        if len(written) == 2:
            raise InputError(f"{path}: saving failed: No space left on device.")
        written.append(path)
        write(path, columns)

    with monkeypatch.context() as patch, pytest.raises(InputError, match="No space left"):
        patch.setattr(embed, "write_shard", full)
        embed.embed(embedder, mixed, out, batch_size=4)
    assert sorted((tmp_path / "out.npz.parts").glob("*.npz")) == written
    assert [len(read_shard(path)["name"]) for path in written] == [7, 6]
    assert embed.embed(embedder, mixed, out, batch_size=4)[:2] == (6, 34)


def test_nothing_that_can_be_used_is_an_error(tmp_path, embedder):
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(InputError, match="no image that can be used"):
        embed.embed(embedder, image_sources([str(tmp_path)]), tmp_path / "out.npz", batch_size=1)
    assert not (tmp_path / "out.npz").exists() and not (tmp_path / "out.npz.parts").exists()
    assert "bad.png" in (tmp_path / "out.npz.skipped.jsonl").read_text()


# --- where images come from ------------------------------------------------------------------------------------------


def test_names_are_found_in_folders_patterns_and_stdin(tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    paths = [shutil.copy(DIGITS[i], folder / f"{i}.png") for i in range(4)]
    (folder / "notes.txt").write_text("no image")
    for names in ([str(tmp_path)], [str(tmp_path / "**" / "*.png")]):
        assert [source.name for source in image_sources(names)] == list(map(str, paths))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{paths[2]}\n\n{paths[0]}\n"))
    assert [source.name for source in image_sources(["-"])] == [str(paths[2]), str(paths[0])]
    odd = folder / "[1].png"
    shutil.copy(DIGITS[0], odd)
    assert [source.name for source in image_sources([str(odd)])] == [str(odd)]


def tar_of(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, kind in (("folder.png", tarfile.DIRTYPE), ("link.png", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)


def test_images_in_a_tar_are_those_of_its_files(tmp_path, embedder):
    content = {f"{i}.{kind}": models.digit_files()[i].read_bytes() for i in range(3) for kind in ("png", "cls")}
    tar_of(tmp_path / "shard.tar", {**content, "bad.png": b"bad"})
    sources = image_sources([str(tmp_path / "shard.tar")])
    assert [source.name for source in sources] == [f"{tmp_path}/shard.tar::{n}.png" for n in (0, 1, 2, "bad")]
    assert embed.embed(embedder, sources, tmp_path / "out.npz", batch_size=2)[:2] == (1, 3)
    found = read_features(tmp_path / "out.npz")[1]["class_token"]
    np.testing.assert_allclose(found, embedder({"path": DIGITS[:3]})["class_token"], rtol=0, atol=1e-5)
    record = json.loads((tmp_path / "out.npz.skipped.jsonl").read_text())
    assert record["error"].startswith(f"{tmp_path}/shard.tar::bad.png: the image: cannot be decoded")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "no image file in this folder"),
        ("*.jpg", "no file matches this pattern"),
        ("bad.tar", "not a sound, uncompressed tar file"),
        ("none.tar", "no image file in this archive"),
    ],
)
def test_places_without_images_are_refused(name, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.tar").write_bytes(b"bad" * 1000)
    tar_of(tmp_path / "none.tar", {"notes.txt": b"no image"})
    with pytest.raises(InputError, match=message):
        image_sources([str(tmp_path / name)])


def test_a_name_that_comes_twice_is_refused():
    with pytest.raises(InputError, match="named twice"):
        image_sources([DIGITS[0], DIGITS[1], DIGITS[0]])


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path, capsys):
    out = str(tmp_path / "out.npz")
    assert main(["embed", *DIGITS, "--out", out, "--layers=-1,0", "--features", "class_token,patch_mean"]) == 0
    assert "20 images, class_token, patch_mean, layer_0.class_token" in capsys.readouterr().out
    assert main(["embed", *DIGITS, "--out", out]) == 1
    assert "something is there already" in capsys.readouterr().err
    (tmp_path / "bad.png").write_bytes(b"bad")
    assert main(["embed", str(tmp_path / "bad.png"), DIGITS[0], "--out", out, "--force", "--batch-size", "1"]) == 3
    assert "1 images could not be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("out.csv", (), "expected the name of a file that ends in .npz, .npy, .parquet"),
        ("out.npy", ("--layers=-1,0",), ".npy holds one array"),
        ("out.npz", ("--workers", "2"), "give --engine ray with it"),
        ("folder.npz", (), "expected a file to write, a folder is there"),
    ],
)
def test_files_that_cannot_be_written_are_refused_at_once(file, options, message, tmp_path, capsys):
    (tmp_path / "folder.npz").mkdir()
    assert main(["embed", *DIGITS, "--out", str(tmp_path / file), *options]) == 1
    assert message in capsys.readouterr().err


def test_parquet_says_what_to_install(tmp_path, embedder, monkeypatch):
    monkeypatch.setattr("vitriad.feature_files.find_spec", lambda name: None)
    with pytest.raises(vitriad.VitError, match=r"needs pyarrow.*\n.*data"):
        embed.check_format(tmp_path / "out.parquet", ["class_token"])


@pytest.mark.parametrize("name", ["ray", "ray.data"])
def test_ray_that_is_not_there_is_named_before_any_work(name, tmp_path, monkeypatch, capsys):
    def missing(asked):
        if asked == name:
            raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("vitriad.ray_pool.import_module", missing)
    monkeypatch.setattr("vitriad.embed.Embedder", None)
    assert main(["embed", *DIGITS, "--out", str(tmp_path / "out.npz"), "--engine", "ray"]) == 1
    text = capsys.readouterr().err
    assert f"needs Ray Data, which cannot be imported: No module named {name!r}" in text
    assert install_command("ray") in text and text.count("\n") == 2 and not [*tmp_path.iterdir()]


def test_files_of_something_else_are_no_features(tmp_path):
    with pytest.raises(MissingFileError):
        read_features(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"bad")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    np.savez(tmp_path / "short.npz", name=np.array(["one"]), features=np.zeros((2, 3)))
    (tmp_path / "bad.parquet").write_bytes(b"bad")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "short.npz").read_bytes()[:300])
    for name in ("bad.npz", "other.npz", "short.npz", "bad.parquet", "cut.npz"):
        with pytest.raises(InputError, match=r"features of images|a row for each of 1 names"):
            read_features(tmp_path / name)


class Timed:
    """In place of an embedder: counts the images of its calls, and moves the clock on."""

    size, pixel_dtype, dtype = (16, 16), np.dtype(np.float32), "float32"
    names = ("class_token", "layer_1.patch_tokens")

    def __init__(self, monkeypatch):
        self.clock, self.images, self.config = 0.0, 0, ViTConfig(hidden_size=48, num_attention_heads=3, patch_size=4)
        monkeypatch.setattr(embed.time, "perf_counter", lambda: self.clock)

    def __call__(self, batch):
        count = len(batch["pixel_values"])
        self.images += count
        self.clock += {1: 0.10, 2: 0.15, 4: 0.20, 8: 0.39, 16: 0.90, 32: 2.0}[count]
        return {}


def test_the_fastest_batch_is_the_one_that_takes_least(monkeypatch):
    assert embed.fastest_batch(Timed(monkeypatch)) == 4


@pytest.mark.parametrize(
    ("count", "batch", "tried"),
    [(1, 1, 0), (3, 3, 0), (8, 8, 0), (9, 5, 0), (16, 8, 0), (599, 8, 0), (600, 4, 30), (5000, 4, 126)],
)
def test_batches_are_tried_where_the_images_repay_it(count, batch, tried, monkeypatch):
    timed = Timed(monkeypatch)
    assert embed._sizes(timed, None, count)["batch"] == batch
    assert timed.images == tried <= count / 20


def test_a_shard_holds_what_its_features_leave_room_for(monkeypatch):
    timed = Timed(monkeypatch)
    assert embed._sizes(timed, 8, 1000) == {"batch": 8, "shard": 512}
    monkeypatch.setattr(embed, "_SHARD_BYTES", 100 * (1 + 16) * 48 * 4)  # of 100 images, each 1 + 16 rows
    assert embed._sizes(timed, 8, 1000) == {"batch": 8, "shard": 96}
    assert timed.images == 0


def test_the_size_of_a_shard_is_that_of_real_features(monkeypatch, everything):
    one = sum(array.nbytes for array in everything({"pixel_values": everything.read(DIGITS[0])[None]}).values())
    monkeypatch.setattr(embed, "_SHARD_BYTES", 7 * one)
    assert embed._sizes(everything, 1, 1000)["shard"] == 7
    monkeypatch.setattr(embed, "_SHARD_BYTES", 7 * one - 1)
    assert embed._sizes(everything, 1, 1000)["shard"] == 6
