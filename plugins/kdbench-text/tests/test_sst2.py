"""sst2: both layouts, the honest test split, and mistakes that say where they are."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from kdbench_text.sst2 import LENGTH, SST2, VOCABULARY, load
from kdbench_text.tokens import EMPTY

from kdbench import UserError

TRAIN = [("good film", 1), ("bad film", 0)]


def refused(folder, *words):
    with pytest.raises(UserError) as error:
        load(folder, False)
    for word in words:
        assert word in str(error.value)


def test_parquet(small):
    data = load(small, False)
    assert data.train.inputs.shape == (4, LENGTH)
    assert data.test.inputs.shape == (3, LENGTH)
    assert data.train.inputs.dtype == data.train.targets.dtype == torch.int64
    assert data.train.targets.tolist() == [1, 0, 1, 0]
    assert data.test.targets.tolist() == [1, 0, 1]
    assert data.train.inputs.max() < SST2.vocabulary == VOCABULARY
    assert data.mean == data.std == data.notes == ()


def test_the_same_files_give_the_same_ids(small):
    first, second = load(small, False), load(small, False)
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert torch.equal(first.test.inputs, second.test.inputs)


def test_the_vocabulary_knows_nothing_of_the_test_split(small, write):
    before = load(small, False).train.inputs
    write("test", [("unheard unheard unheard words", 1)] * 50)
    assert torch.equal(load(small, False).train.inputs, before)


def test_glue_files_give_what_parquet_does(small, glue):
    parquet = load(small, False)
    for file in (small / "sst2").iterdir():
        file.unlink()
    tsv = load(glue, False)
    assert torch.equal(tsv.train.inputs, parquet.train.inputs)
    assert torch.equal(tsv.test.inputs, parquet.test.inputs)
    assert torch.equal(tsv.test.targets, parquet.test.targets)
    assert "dev.tsv" in tsv.notes[0]


def test_shards_are_read_in_order(write, tmp_path):
    write("train", TRAIN[:1], "00000-of-00002")
    write("train", TRAIN[1:], "00001-of-00002")
    write("test", TRAIN)
    assert load(tmp_path, False).train.targets.tolist() == [1, 0]


def test_without_test_labels_the_validation_file_is_used_and_told(small, write):
    write("test", [("a film", -1)] * 5)
    data = load(small, False)
    assert len(data.test.targets) == 2
    assert data.notes == (
        "the test split is the validation file: the test file has no labels",
    )


def test_without_a_test_file_the_validation_file_is_used_and_told(small):
    (small / "sst2" / "test-00000-of-00001.parquet").unlink()
    data = load(small, False)
    assert len(data.test.targets) == 2
    assert "there is no test file" in data.notes[0]


def test_cut_texts_are_told(small, write):
    write("test", [("word " * 200, 1), ("word", 0)])
    [note] = load(small, False).notes
    assert note == "1 of 2 test texts were longer than 64 tokens and were cut"


def test_an_empty_text_stays_in_the_test_split(small, write):
    write("test", [("", 1), ("a film", 0)])
    data = load(small, False)
    assert data.test.inputs[0, :2].tolist() == [EMPTY, 0]
    assert len(data.test.targets) == 2


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text_in_training_is_refused(small, write, text):
    path = write("train", [*TRAIN, (text, 1)])
    refused(small, f"{path}, row 3: an empty text")


@pytest.mark.parametrize("label", [2, -1, -7])
def test_a_label_out_of_range_is_refused(small, write, label):
    for part in ("train", "test"):
        path = write(part, [*TRAIN, ("odd", label)])
        refused(small, f"{path}, row 3: label {label} is none of 0 to 1")
        write(part, TRAIN)


def test_missing_values_are_refused(small, write):
    path = write("train", [*TRAIN, (None, 1)])
    refused(small, f"{path}, row 3: the text is missing")
    path = write("train", [("good", 1), ("odd", None)])
    refused(small, f"{path}, row 2: the label is missing")


def test_labels_of_one_kind_are_refused(small, write):
    write("train", TRAIN[:1] * 3)
    refused(small, "all training labels are 1")
    write("train", [("good", -1)])
    refused(small, "no text of this split has a label")


def test_columns_are_found_by_type(small, write):
    table = pa.table({"review": ["good", "bad"], "stars": pa.array([1, 0], pa.int8())})
    pq.write_table(table, small / "sst2" / "train-00000-of-00001.parquet")
    assert load(small, False).train.targets.tolist() == [1, 0]


def test_other_columns_are_refused(small, write):
    path = write("train", TRAIN)
    pq.write_table(pa.table({"sentence": ["a"], "label": [0.5]}), path)
    refused(small, str(path), "needs one integer column", "label (double)")
    pq.write_table(pa.table({"label": [1]}), path)
    refused(small, "needs one text column, or one named 'sentence'", "label (int64)")
    pq.write_table(pa.table({"a": ["x"], "b": ["y"], "label": [1]}), path)
    refused(small, "needs one text column", "a (string), b (string)")


def test_damaged_and_empty_files_are_refused(small, write):
    path = write("train", TRAIN)
    path.write_bytes(path.read_bytes()[:100])
    refused(small, f"{path} cannot be read as parquet", "fetch the file again")
    write("train", [])
    refused(small, "needs one text column")
    pq.write_table(
        pa.table({"sentence": pa.array([], "string"), "label": pa.array([], "int64")}),
        path,
    )
    refused(small, f"{path} has no rows")


def test_missing_files_are_refused(tmp_path, write):
    refused(None, "--data-dir", "KDBENCH_DATA", "sst2/train-*.parquet", "dev.tsv")
    refused(tmp_path, f"not found in {tmp_path}", "SST-2/train.tsv")
    with pytest.raises(UserError, match="--download cannot fetch it"):
        load(tmp_path, True)
    write("train", TRAIN)
    refused(tmp_path, "the test file is missing, and there is no validation file")
    write("test", [("a film", -1)])
    refused(tmp_path, "the test file has no labels, and there is no validation file")


def test_odd_lines_of_tsv_are_refused(glue):
    path = glue / "SST-2" / "train.tsv"
    for lines, words in (
        ("sentence\tlabel\ngood\t1\nbad\n", f"{path}, line 3: not 'text<TAB>label'"),
        ("sentence\tlabel\ngood\tone\n", f"{path}, line 2: not 'text<TAB>label'"),
        ("text\tlabel\ngood\t1\n", f"{path}: the first line must be"),
        ("sentence\tlabel\ngood\t1\nbad\t3\n", f"{path}, line 3: label 3"),
        ("sentence\tlabel\ngood\t1\n \t0\n", f"{path}, line 3: an empty text"),
        ("sentence\tlabel\n", f"{path} has no rows"),
    ):
        path.write_text(lines, encoding="utf-8")
        refused(glue, words)
    path.write_bytes(b"sentence\tlabel\n\xff\t1\n")
    refused(glue, f"{path} cannot be read")
    path.write_text("sentence\tlabel\ngood\t1\nbad\t0\n", encoding="utf-8")
    (glue / "SST-2" / "dev.tsv").unlink()
    refused(glue, "dev.tsv cannot be read")


def test_a_line_separator_inside_a_text_ends_no_line(glue):
    path = glue / "SST-2" / "train.tsv"
    path.write_text(
        "sentence\tlabel\ngood\u2028film\u0085!\t1\r\nbad\t0\n", encoding="utf-8"
    )
    assert load(glue, False).train.targets.tolist() == [1, 0]


@pytest.mark.data
def test_the_real_files(data_dir):
    data = load(data_dir, False)
    assert data.train.inputs.shape == (6920, LENGTH)
    assert data.test.inputs.shape == (1821, LENGTH)
    assert data.train.targets.bincount().tolist() == [3310, 3610]
    assert data.test.targets.bincount().tolist() == [912, 909]
    assert data.train.inputs.unique().numel() > 0.9 * VOCABULARY
    assert re.match("16 of 6,920 training texts were longer than 64", data.notes[0])
    assert re.match("4 of 1,821 test texts were longer than 64", data.notes[1])
    [validation] = (data_dir / "sst2").glob("validation-*.parquet")
    assert pq.read_metadata(validation).num_rows == 872
