"""Level 4."""

from dataclasses import dataclass

from torch import nn

from kdbench import Context, Strategy, label_loss, soft_kl


@dataclass(frozen=True, kw_only=True)
class Loop(Strategy):
    """Level 4: its own loop, with a number that outlives an interruption."""

    name = "v1_loop"
    family = "version 1"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    temperature: float = 4.0  # dimensionless, > 0

    def train(self, context: Context) -> nn.Module:
        student, teacher = context.students[0], context.teachers[0]
        optimiser = context.optimiser(student.parameters())
        for _ in context.epochs():
            for batch in context.batches():
                ours, theirs = student(batch.inputs), teacher(batch.inputs)
                ce = label_loss(context.task, ours, batch.targets)
                loss = ce + soft_kl(ours, theirs, self.temperature)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                context.log("ce", ce)
            context.state["epochs"] = context.state.get("epochs", 0.0) + 1
        return student
