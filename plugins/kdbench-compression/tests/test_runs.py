"""Through the host, on the embedded digits: trained, deployed, kept, resumed."""

from pathlib import Path

import pytest
from kdbench_compression import students
from safetensors.torch import load_file

from kdbench.config import changed, read_suite
from kdbench.data.digits import DIGITS
from kdbench.measure import speed
from kdbench.plugins import Host
from kdbench.session import Options, Session
from kdbench.store import load

PAIRS = ["conv-pruned-75", "conv-int8", "conv-pruned-75-int8"]
MODELS = {model.name: model for model in students.models()}

HALFWAY = '''
"""An executor that is stopped in the first epoch of the students."""
from itertools import count

from kdbench import Executor, hookimpl
from kdbench.execute import here


def start(jobs, workers, host, emit, stop):
    calls = count()
    here(jobs, workers, host, emit, lambda: next(calls) >= 30)


@hookimpl
def kdbench_executors():
    return [Executor(name="halfway", summary="stops", start=start)]
'''


def run(out: Path, host: Host | None = None, executor: str = "here", **changes: object):
    """One epoch (21 steps) of the suite's pairs; records by "pair/label"."""
    host = host or Host()
    suite = read_suite(host.get("suites", "compress").thing.path)
    wanted = {"epochs": 1, "seeds": 1, "pairs": PAIRS, "strategies": ["scratch", "kd"]}
    suite = changed(suite, {**wanted, **changes})
    options = Options(
        out=out,
        device="cpu",
        data_dir=None,
        download=False,
        workers=1,
        executor=executor,
        checkpoint_every_s=60.0,
    )
    Session(host, suite, options).train()
    return {f"{r.run.pair}/{r.run.label}": r for r in load([out / "compress"]).records}


def bits(record):
    timed = {
        name for name in record.measures if name.startswith(("latency", "through"))
    }
    kept = {k: v for k, v in record.measures.items() if k not in timed}
    left = record.model_dump(exclude={"environment", "cost", "finished_at", "measures"})
    return {**left, "measures": kept}


@pytest.fixture(scope="module", autouse=True)
def _quick_timing():
    """Timings are no matter of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "MIN_SECONDS", 0.01)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compress")


@pytest.fixture(scope="module")
def records(folder):
    return run(folder)


def student_records(records):
    return [r for r in records.values() if not r.run.is_teacher]


def test_every_run_finishes_and_what_is_kept_is_what_was_measured(folder, records):
    assert len(student_records(records)) == 6
    data = DIGITS.load(None, False)
    inputs = (data.test.inputs.float() - data.mean[0]) / data.std[0]
    for record in student_records(records):
        assert record.status == "finished", record.reason
        model = MODELS[record.run.students[0]]
        network = DIGITS.build(model).eval()
        network = model.deploy(network) if model.deploy else network
        path = folder / "compress" / "weights" / f"{record.id}.safetensors"
        network.load_state_dict(load_file(path))
        assert path.stat().st_size == record.measures["size_bytes"]
        right = network(inputs).argmax(1) == data.test.targets
        top1 = 100 * right.double().mean().item()
        assert abs(top1 - record.measures["top1"]) < 0.3  # one item at a border
        if model.deploy:
            assert record.curves["top1"][-1] == pytest.approx(top1, abs=0.5)


def test_size_parameters_and_macs_are_counted(records):
    by_pair = {r.run.pair: r.measures for r in student_records(records)}
    plain, quantised, both = (by_pair[pair] for pair in PAIRS)
    assert plain["parameters"] == 2034
    assert both["parameters"] == 2002  # the 32 factors of batch norm are folded
    assert quantised["macs"] == 903808
    assert both["macs"] == plain["macs"] == 60064
    assert both["size_bytes"] < plain["size_bytes"] < quantised["size_bytes"] < 32000


def test_a_student_from_its_teacher_has_a_head_start(records):
    [teacher] = {r.measures["top1"] for r in records.values() if r.run.is_teacher}
    assert records["conv-int8/scratch"].measures["top1"] > teacher


def test_a_run_does_not_depend_on_its_company(records, tmp_path):
    alone = run(tmp_path, pairs=["conv-pruned-75-int8"], strategies=["kd"])
    cell = "conv-pruned-75-int8/kd"
    assert bits(alone[cell]) == bits(records[cell])


def test_stopped_and_resumed_to_the_bit(records, tmp_path):
    plugin = tmp_path / "halfway.py"
    plugin.write_text(HALFWAY)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Host(files=[plugin]), "halfway")
    assert list((tmp_path / "compress" / "checkpoints").glob("*.ckpt"))
    resumed = run(tmp_path)
    assert resumed.keys() == records.keys()
    for cell, record in records.items():
        assert bits(resumed[cell]) == bits(record), cell


def test_a_wrong_teacher_is_named_in_the_record(tmp_path):
    plugin = tmp_path / "wrong.py"
    plugin.write_text(
        "from kdbench import Pair, hookimpl\n"
        "@hookimpl\n"
        "def kdbench_pairs():\n"
        "    return [Pair(name='wrong', teachers=('convnet_6',),\n"
        "                 students=('convnet_32_pruned_75',))]\n"
    )
    found = run(tmp_path, Host(files=[plugin]), pairs=["wrong"], strategies=["kd"])
    for record in student_records(found):
        assert record.status == "failed"
        assert "name convnet_32 as the pair's teacher" in record.reason
