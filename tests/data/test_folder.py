"""`folder:PATH`: any tree of images or folder of parquet files."""

from __future__ import annotations

import os
import shutil
from itertools import product

import numpy as np
import PIL.Image
import pytest

from kdbench.api import UserError
from kdbench.data.checks import loaded
from kdbench.data.folder import image_folder


def load(text):
    return loaded(image_folder(str(text)), None, False)


def refused(text, *words, load=load):
    with pytest.raises(UserError) as caught:
        load(str(text))
    for word in words:
        assert word in str(caught.value)


def test_a_path_may_hold_blanks_and_be_any_where_a_name_is_asked_for(
    write, host, tmp_path
):
    root = write["tree"](tmp_path / "my own pictures")
    found = host.dataset(f"folder:{root}")
    assert found.name == f"folder:{root}"
    assert found.task.outputs == 10
    with pytest.raises(UserError, match="there is no folder"):
        host.dataset(f"folder:{root}s")


def test_a_tree_is_described_by_what_it_holds(write, tmp_path):
    root = write["tree"](tmp_path / "tree")
    (root / "train" / "class_0" / "notes.txt").write_text("no image")
    (root / "train" / "class_0" / "._00.png").write_text("left by another system")
    dataset = image_folder(str(root))
    assert dataset.name == f"folder:{root}"
    assert dataset.input_shape == (3, 32, 32)
    assert dataset.task.outputs == 10
    data = loaded(dataset, None, False)
    images, labels = write["pictures"]("train")
    assert np.array_equal(data.train.inputs.numpy(), images)
    assert np.array_equal(data.train.targets.numpy(), labels)
    pixels = images.astype(np.float64)
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)))
    assert data.std == pytest.approx(pixels.std((0, 2, 3)))
    assert data.notes == ()


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_the_test_set_may_be_called_val(write, tmp_path, name):
    root = write["tree"](tmp_path / "tree", names=("train", name))
    assert len(load(root).test.targets) == 10


def test_grey_images_have_one_channel(write, tmp_path):
    root = write["tree"](tmp_path / "tree", channels=1)
    data = load(root)
    assert np.array_equal(
        data.train.inputs.numpy(), write["pictures"]("train", channels=1)[0]
    )
    assert len(data.mean) == 1


def test_labels_are_the_places_of_sorted_names(write, tmp_path):
    root = write["tree"](tmp_path / "tree")
    for split in ("train", "test"):
        (root / split / "class_0").rename(root / split / "zebra")
    assert load(root).test.targets.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert np.array_equal(
        load(root).test.inputs[9].numpy(), write["pictures"]("test")[0][0]
    )


def resized_one(root, name, size):
    path = root / name
    PIL.Image.open(path).resize(size).save(path)
    return path


def test_images_of_several_sizes_want_a_size(write, tmp_path):
    root = write["tree"](tmp_path / "tree")
    path = resized_one(root, "train/class_4/08.png", (40, 30))
    resized_one(root, "test/class_4/04.png", (10, 20))
    words = (str(path), "have 3 sizes, from 10x20 to 40x30", "@SIZE")
    refused(root, *words)
    data = load(f"{root}@16")
    assert data.train.inputs.shape == (20, 3, 16, 16)
    assert image_folder(f"{root}@16").input_shape == (3, 16, 16)


def test_resizing_is_antialiased(tmp_path):
    """Of stripes one pixel wide, grey is left: nothing is merely skipped."""
    stripes = np.zeros((64, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    for split in ("train", "test"):
        for name, image in (("black", 0 * stripes), ("grey", stripes)):
            (tmp_path / split / name).mkdir(parents=True)
            PIL.Image.fromarray(image).save(tmp_path / split / name / "x.png")
    black, grey = load(f"{tmp_path}@8").train.inputs
    assert not black.any()
    assert (grey.float() - 127).abs().max() < 8


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_an_image_of_another_mode_is_named(write, tmp_path, mode):
    root = write["tree"](tmp_path / "tree")
    path = root / "train" / "class_0" / "00.png"  # the first, by which others are read
    PIL.Image.open(path).convert(mode).save(path)
    words = (f"{path}: an image of mode {mode} where RGB was expected", "29 RGB")
    refused(root, *words)
    refused(f"{root}@16", *words)


def test_a_corrupt_image_is_named(write, tmp_path):
    root = write["tree"](tmp_path / "tree")
    path = root / "test" / "class_7" / "07.png"
    path.write_bytes(path.read_bytes()[:300])
    refused(root, f"{path}: no image that can be read")


def test_classes_that_are_empty_or_only_in_test(write, tmp_path):
    root = write["tree"](tmp_path / "tree")
    (root / "test" / "class_x").mkdir()
    refused(root, "class_x: no class of this name in", load=image_folder)
    (root / "test" / "class_x").rmdir()
    shutil.rmtree(root / "train" / "class_3")
    (root / "train" / "class_3").mkdir()
    refused(root, "class_3: the class has no images", load=image_folder)


def test_empty_splits(write, tmp_path):
    root = write["tree"](tmp_path / "tree")
    shutil.rmtree(root / "test")
    layout = "holds neither train/CLASS/IMAGE and test/CLASS/IMAGE"
    refused(root, layout, load=image_folder)
    (root / "test").mkdir()
    refused(root, "test: there are no images", load=image_folder)


def test_what_is_no_folder(tmp_path):
    refused(tmp_path / "nothing", "there is no folder", load=image_folder)
    refused("", "there is no folder", load=image_folder)
    (tmp_path / "train" / "one").mkdir(parents=True)
    (tmp_path / "test").mkdir()
    refused(tmp_path, "one: the class has no images", load=image_folder)


def test_one_class_is_nothing_to_tell_apart(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "only").mkdir(parents=True)
        PIL.Image.new("RGB", (8, 8)).save(tmp_path / split / "only" / "x.png")
    refused(tmp_path, "only one class", load=image_folder)


def test_several_label_columns_need_a_choice(write, tmp_path):
    root = write["parquet"](tmp_path / "tables")
    words = ("?label=COLUMN: there are several", "half, label; choose one")
    refused(root, *words, load=image_folder)
    assert image_folder(f"{root}?label=label").task.outputs == 10
    dataset = image_folder(f"{root}@16?label=half")
    assert dataset.task.outputs == 2
    assert loaded(dataset, None, False).train.inputs.shape == (20, 3, 16, 16)
    refused(f"{root}?label=haft", "did you mean 'half'", load=image_folder)


def test_one_label_column_needs_none(write, tmp_path):
    for split in ("train", "test"):
        rows = write["rows_of"](split)
        rows = [{"img": row["img"], "y": row["label"]} for row in rows]
        write["rows"](tmp_path / f"{split}.parquet", rows)
    assert load(tmp_path).train.targets.max() == 9


def test_a_test_label_that_training_lacks(write, tmp_path):
    root = write["parquet"](tmp_path / "tables", shards=1)
    rows = write["rows_of"]("test")
    rows[4]["label"] = 10
    path = write["rows"](root / "test-00000-of-00002.parquet", rows)
    words = f"{path}, row 4: label 10 is not in 0..9"
    refused(f"{root}?label=label", words, load=image_folder)


def test_classes_without_training_images_are_told(write, tmp_path):
    root = write["parquet"](tmp_path / "tables", shards=1)
    rows = [row for row in write["rows_of"]("train") if row["label"] != 3]
    write["rows"](root / "train-00000-of-00002.parquet", rows)
    [note] = load(f"{root}?label=label").notes
    assert note == "1 of 10 classes have no training image: 3"


def test_the_version_follows_the_files_and_not_their_times(write, tmp_path):
    root = write["tree"](tmp_path / "tree")
    copy = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    first = image_folder(str(root)).version
    assert image_folder(str(copy)).version == first
    (copy / "test" / "class_0" / "00.png").unlink()
    assert image_folder(str(copy)).version != first


def test_what_differs_in_its_pixels_alone_is_another_set(write, tmp_path):
    """Files of the same names, sizes and times, as archives unpack them."""
    sets = []
    for name, level in (("a", 10), ("b", 200)):
        for split, label in product(("train", "test"), ("one", "two")):
            folder = tmp_path / name / split / label
            folder.mkdir(parents=True)
            image = PIL.Image.new("L", (8, 8), level + ord(label[0]) % 7)
            image.save(folder / "0.bmp")
            os.utime(folder / "0.bmp", (1, 1))
        sets.append(image_folder(str(tmp_path / name)))
    one, other = (loaded(dataset, None, False) for dataset in sets)
    assert sets[0].version != sets[1].version
    assert (one.train.inputs < 100).all()
    assert (other.train.inputs >= 200).all()


def test_contents_of_the_same_size_and_time_are_another_version(tmp_path, write):
    root = write["tree"](tmp_path / "tree")
    before = image_folder(str(root)).version
    file = next((root / "train" / "class_0").iterdir())
    facts = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert image_folder(str(root)).version != before


def test_a_label_that_is_named_must_be_there(write, tmp_path):
    root = write["tree"](tmp_path / "tree")
    refused(f"{root}?label=kind", "unknown label column 'kind'")


def test_a_label_beyond_all_images_is_told_with_its_place(write, tmp_path):
    for split in ("train", "test"):
        rows = write["rows_of"](split)
        for row in rows:
            del row["half"]
        if split == "train":
            rows[3]["label"] = 300_000_000
        write["rows"](tmp_path / "set" / f"{split}-0.parquet", rows)
    refused(tmp_path / "set", "train-0.parquet, row 3", "300,000,000")


def test_what_is_hidden_is_no_image(write, tmp_path):
    root = write["tree"](tmp_path / "tree")
    items = len(load(root).train.targets)
    known = next((root / "train" / "class_0").iterdir())
    hidden = root / "train" / "class_0" / ".ipynb_checkpoints"
    hidden.mkdir()
    shutil.copy(known, hidden / "0.png")
    (root / "train" / "class_0" / "folder.png").mkdir()
    assert len(load(root).train.targets) == items
