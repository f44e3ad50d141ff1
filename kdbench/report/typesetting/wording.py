"""What the manuscript says of itself: the protocol, how to read it, its limits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kdbench.report import formats
from kdbench.report.cost import machine_name
from kdbench.report.document import Document
from kdbench.report.sections import Section
from kdbench.report.typesetting.blocks import Span, Spans, text
from kdbench.report.typesetting.prose import sentence
from kdbench.store import Results

PROTOCOL = (
    "All numbers here were measured by one program under one protocol; none was copied "
    "from elsewhere. The rules that matter most to a reader follow. Ruleset: "
    "published. Every strategy has its published defaults, one setting for all pairs; "
    "what differs from them stands in its label."
)

REPORTING = (
    "The headline is the last epoch on the whole test set. The best test epoch is "
    "never computed; learning curves show the test set and select nothing.",
    "The student alone (scratch) and with plain knowledge distillation (kd) come from "
    "the same program as all others. Numbers from the literature, where any are shown, "
    "stand in columns of their own.",
    "Beside accuracy stand what else is known of a student's outputs and what its "
    "training and its use cost. Agreement with the teacher is not accuracy "
    "[@stanton2021does]. A value that is not known is left open and never 0.",
)

TRAINING = (
    "For a given seed all strategies start from the same student and see the same "
    "batches in the same augmentation, so differences between them are paired by "
    "seed. Random streams depend on the seed and their purpose alone: which other "
    "strategies run changes no number.",
    "Teachers are frozen; their weights and buffers are compared by hash after every "
    "epoch. Teacher and student see the same view of each input [@beyer2022knowledge], "
    "unless the paper of a strategy has it otherwise.",
    "Batch size, weight decay and the treatment of the last partial batch are the "
    "recipe's, alike for all. What a strategy trains beside the student is counted "
    "apart and gone at test time, unless the strategy deploys it by definition.",
)

STATISTICS = (
    "Over seeds: the unit is a training from its own seed. Means stand with 95% "
    "t-intervals and sample standard deviations (n - 1). Two strategies are compared "
    "by a two-sided paired t-test over the seeds that both finished "
    "[@student1908probable], and, where a table says so, by a sign-flip permutation "
    "test of the same differences; where several strategies are compared, p-values are "
    "adjusted by Holm's method [@holm1979simple], over what stands in each caption. "
    "n.s. marks a p of 0.05 and above. With one seed there is no interval and no test.",
    "Over test items, where a table says so: McNemar's test compares two trained "
    "students by the items that only one of them gets right [@mcnemar1947note], and "
    "bootstrap intervals resample the items [@efron1979bootstrap]. Both speak of these "
    "very students on other items, not of another training.",
    "Over settings, where there are several: mean ranks with the tests that Demšar "
    "[@demsar2006statistical] advises, and performance profiles "
    "[@dolan2002benchmarking], here of the distance to the best of each setting.",
)

READING = (
    "In the tables bold marks the best of a column, which is no test, and a dagger "
    "what a test does not tell from the best. An en dash marks what is not known or "
    "does not apply."
)


def cited(words: str) -> Spans:
    """Own words in which [@key] is a citation. Never for text from records."""
    parts = re.split(r"\[@([\w;]+)\]", words)
    return tuple(
        Span("cite", part) if place % 2 else Span("text", sentence_part(part))
        for place, part in enumerate(parts)
        if part
    )


def sentence_part(words: str) -> str:
    """A sentence cut by a citation keeps the space beside it."""
    left = " " if words.startswith(" ") else ""
    right = " " if words.endswith(" ") else ""
    return f"{left}{sentence(words)}{right}"


def limits(document: Document, results: Results) -> Iterator[Spans]:
    """What must be borne in mind about these very records, a few sentences each."""
    found = document.sections
    for words in (
        _seeds(found),
        _teachers(found),
        _machines(results),
        _versions(results),
        _unfinished(results),
        _left_out(results),
    ):
        if words:
            yield text(sentence(words))
    if found:
        yield text(
            sentence(
                "Not significant does not mean equal: it says that these data do not "
                "tell two strategies apart. Intervals are not adjusted for the number "
                "of strategies, and neither is the choice of the best one."
            )
        )
        yield text(
            sentence(
                "No hyper-parameter was searched for. What holds under this "
                "recipe may not hold under a longer training, another augmentation or "
                "after a search."
                if len({section.recipe.sentence() for section in found}) == 1
                else "No hyper-parameter was searched for. What holds under these "
                "recipes may not hold under others, or after a search."
            )
        )


def _seeds(sections: list[Section]) -> str:
    counts = sorted({len(section.seeds) for section in sections})
    if not counts:
        return ""
    if counts == [1]:
        return (
            "There is one seed. The spread over seeds is not known, and no difference "
            "here is shown to be more than chance."
        )
    many = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    return (
        f"There are {many} seeds. Intervals and tests over few seeds rest on the "
        "assumption that differences between seeds are normally distributed, which so "
        "few cannot check, and they show large differences only."
    )


def _teachers(sections: list[Section]) -> str:
    leading = [
        {r.run.teacher_runs[0] for r in section.records if r.run.teacher_runs}
        for section in sections
    ]
    most = max((len(teachers) for teachers in leading), default=0)
    if most == 0:
        return ""
    if most == 1:
        return (
            "Within a setting one checkpoint of the teacher taught all seeds. "
            "Intervals do not contain what training the teacher again would change."
        )
    return (
        "In some settings the students did not all learn from the same checkpoint of "
        "the teacher (see the notes of their tables). Its own variation is not told "
        "apart from that of the students."
    )


def _machines(results: Results) -> str:
    names = sorted(
        {machine_name(r.environment, threads=False) for r in results.records}
    )
    if len(names) > 1:
        return (
            f"The runs come from {len(names)} machines ({'; '.join(names)}). Times are "
            "compared only within one of them."
        )
    if names:
        return (
            f"All runs were made on one kind of machine ({names[0]}). Times and "
            "latencies hold for it, and their order may be another elsewhere."
        )
    return ""


def _versions(results: Results) -> str:
    engines = sorted({record.run.engine for record in results.records})
    if len(engines) < 2:
        return ""
    return (
        f"The records are of {len(engines)} versions of the engine "
        f"({', '.join(map(str, engines))}); each setting is of one."
    )


def _unfinished(results: Results) -> str:
    counts = [
        f"{number} {status}"
        for status in ("failed", "skipped")
        if (number := sum(r.status == status for r in results.records))
    ]
    if not counts:
        return ""
    return (
        f"Of {formats.plural(len(results.records), 'run')}, {' and '.join(counts)}. A "
        "mean over the seeds that finished may flatter a strategy that fails on others."
    )


def _left_out(results: Results) -> str:
    parts = []
    if results.superseded:
        many = formats.plural(results.superseded, "record")
        parts.append(f"{many} of which there is a newer one")
    if results.damaged:
        parts.append(formats.plural(len(results.damaged), "file") + " not to be read")
    return f"Left out of this report: {' and '.join(parts)}." if parts else ""
