"""What a student without gradients fits: labels and teacher mixed, item by item."""

from torch import Tensor

from kdbench import Batch, at_least_float32, label_target


def mixed_target(
    batch: Batch, label_weight: float, teacher_weight: float, temperature: float = 1.0
) -> Tensor:
    """The weighted mean of label and teacher: (B, C) probabilities or (B, K) numbers.

    A student that minimises cross-entropy (or squared error) to this minimises the
    same mixture of its two terms, up to the factor T^2 and a softened student, which
    one without gradients does not have. Raises ValueError where both weights are 0.
    """
    total = label_weight + teacher_weight
    if total == 0:
        raise ValueError("both weights are 0: there is nothing to learn")
    teacher = at_least_float32(batch.teacher.logits)
    if batch.task.kind == "classification":
        teacher = (teacher / temperature).softmax(1)
    label = label_target(batch.task, batch.targets)
    return (label_weight * label + teacher_weight * teacher) / total
