"""A finished student written to be used elsewhere, and proven to be the same.

What was written is read back and run by its own runtime on every test item.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from kdbench.api import UserError, unknown
from kdbench.exporting.page import ABOUT, README, described, header, page
from kdbench.exporting.proof import Proof, proven
from kdbench.exporting.runs import title_of
from kdbench.exporting.student import Student, finished
from kdbench.forms.files import FORMS, Deployed
from kdbench.plugins import Host
from kdbench.records import Record


def export(
    record: Record,
    host: Host,
    folder: Path,
    out: Path,
    form: str,
    *,
    force: bool = False,
    data_dir: Path | None = None,
    device: str = "cpu",
) -> Proof:
    """Write the student of a run in `folder` into `out`, and prove what was written.

    `device` is where the student answers; what was written is run on the CPU. Raises
    UserError, and leaves nothing behind, where this student cannot be written in this
    form, where what was written answers otherwise, or where something is in `out`
    already (without `force`, or when it is no export).
    """
    if form not in FORMS:
        raise unknown("format", form, FORMS)
    _refuse(record, host, form, out, force)
    student = finished(record, host, folder, data_dir, device)
    chosen = FORMS[form]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=out.resolve().parent, prefix=f".{out.name}.", ignore_cleanup_errors=True
        ) as name:
            proof = _filled(student, host, form, Path(name))
            out.mkdir(exist_ok=True)
            # student.json last: until then it tells of the files that are still there
            for file in (chosen.file, README, ABOUT):
                shutil.move(Path(name, file), out / file)
            for other in {one.file for one in FORMS.values()} - {chosen.file}:
                (out / other).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written: {error.strerror or error}"
        ) from error
    return proof


def _refuse(record: Record, host: Host, form: str, out: Path, force: bool) -> None:
    """UserError where there is nothing to write, or it would overwrite something."""
    chosen, title = FORMS[form], title_of(record.run)
    if record.status != "finished":
        was = "was skipped" if record.status == "skipped" else "failed"
        raise UserError(f"{title} {was}, there is nothing to export: {record.reason}")
    why = chosen.missing()
    if why:
        raise UserError(f"--format {form}: {why}; or take another --format")
    model = record.run.students[0]
    if host.model(model).learner == "fitted" and not chosen.bare:
        raise UserError(
            f"{title}: {model} was fitted without gradients and is no network of "
            f"tensor operations, so that --format {form} cannot hold it; --format "
            "safetensors does"
        )
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder with --out DIR")
    if out.is_dir() and any(out.iterdir()):
        if not (out / ABOUT).is_file():
            raise UserError(
                f"{out} holds other things than an export; give a folder of its own "
                "with --out DIR"
            )
        if not force:
            raise UserError(
                f"{out} holds an export already; replace it with --force, or give "
                "another folder with --out DIR"
            )


def _filled(student: Student, host: Host, form: str, folder: Path) -> Proof:
    """All files of an export, in this folder; UserError where the proof fails."""
    chosen = FORMS[form]
    path = folder / chosen.file
    run = student.record.run
    whole = student.whole(student.network)

    def fresh() -> Deployed:
        spec = host.compressed(run.students[0], run.compression)
        return student.whole(student.dataset.deployed(spec))

    try:
        chosen.write(whole, student.stored[:2], path, header(student))
        ask = chosen.read(path, fresh)
        proof = proven(student, chosen, ask)
    except OSError:
        raise
    except Exception as error:
        other = "onnx or torch-export" if chosen.bare else "safetensors"
        raise UserError(
            f"{student.title} cannot be exported as {form}: {error}\n  nothing was "
            f"written; --format {other} may hold it"
        ) from error
    size, digest = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
    about = described(
        student,
        whole,
        {
            "name": chosen.file,
            "format": form,
            "bytes": size,
            "sha256": digest,
            "preprocessing_inside": not chosen.bare,
        },
        proof.described(),
        host,
    )
    text = json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / ABOUT).write_text(text, encoding="utf-8")
    (folder / README).write_text(page(about, student.spec), encoding="utf-8")
    return proof
