"""Audio for kdbench: spoken digits, and keyword-spotting teachers and students."""

from pathlib import Path

from kdbench import Dataset, Model, Pair, SuiteFile, hookimpl
from kdbench_audio.ds_cnn import ds_cnn
from kdbench_audio.fsdd import DATASETS
from kdbench_audio.res8 import RES8, RES8_NARROW

STUDENT_WIDTHS = (4, 8, 16, 64)


@hookimpl
def kdbench_datasets() -> list[Dataset]:
    """Spoken digits: the given split, and each speaker left out."""
    return list(DATASETS)


@hookimpl
def kdbench_models() -> list[Model]:
    """Residual teachers and depthwise-separable students."""
    return [RES8, RES8_NARROW, *map(ds_cnn, STUDENT_WIDTHS)]


@hookimpl
def kdbench_pairs() -> list[Pair]:
    """A residual net teaches depthwise-separable ones, and a narrow one of its kind."""
    return [
        Pair(
            name="fsdd-res8-ds4",
            teachers=("kws_res8_narrow",),
            students=("ds_cnn_4",),
            summary="residual to depthwise-separable, 34 times fewer parameters",
        ),
        Pair(
            name="fsdd-res8-ds8",
            teachers=("kws_res8_narrow",),
            students=("ds_cnn_8",),
            summary="residual to depthwise-separable, 16 times fewer parameters",
        ),
        Pair(
            name="fsdd-res8-narrow",
            teachers=("kws_res8",),
            students=("kws_res8_narrow",),
            summary="one architecture, 45 to 19 channels",
        ),
    ]


@hookimpl
def kdbench_suites() -> list[SuiteFile]:
    """The packaged suite."""
    files = (Path(__file__).parent / "suites").glob("*.toml")
    return [SuiteFile(name=path.stem, path=path) for path in sorted(files)]
