"""The slow, obviously right versions that everything is held against."""

import torch
import torch.nn.functional as F


def row(batch, index):
    """Row `index` of a batch, as a batch of one."""
    return {key: value[index : index + 1] for key, value in batch.items()}


def scalar_loss(model, batch):
    """A model's own loss of a batch, or the cross-entropy of its logits."""
    outputs = model(**batch) if "labels" not in batch or hasattr(model, "config") else model(**_inputs(batch))
    if not isinstance(outputs, torch.Tensor):
        return outputs.loss
    return F.cross_entropy(outputs, batch["labels"])


def _inputs(batch):
    return {key: value for key, value in batch.items() if key != "labels"}


def per_example_gradients(model, batch, names):
    """[B, D] gradients of each row's own loss, one row at a time, by autograd."""
    model.eval()
    parameters = [dict(model.named_parameters())[name] for name in names]
    for parameter in parameters:
        parameter.requires_grad_(True)
    rows = []
    for index in range(len(next(iter(batch.values())))):
        loss = scalar_loss(model, row(batch, index))
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        rows.append(
            torch.cat(
                [(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(found, parameters, strict=True)]
            )
        )
    return torch.stack(rows)


def relative_error(found, wanted):
    """Largest error of a row, relative to the length of the longest row."""
    return ((found - wanted).norm(dim=1).max() / wanted.norm(dim=1).max()).item()


def exact_agreement(gradients, sketch, groups):
    """The paper's formula, with loops: z = S g, u = unit of the sum of the group's z / |z|, score = <z / |z|, u>."""
    z = [sketch.double() @ g.double() for g in gradients]
    units = [v / v.norm() for v in z]
    scores = []
    for unit, group in zip(units, groups, strict=True):
        total = sum(other for other, theirs in zip(units, groups, strict=True) if theirs == group)
        scores.append(float(unit @ (total / total.norm())))
    return torch.tensor(scores)


def gram_gap(rows, sketch):
    """Smallest and largest eigenvalue of A^T A - S^T S, in float64."""
    rows, sketch = rows.double(), sketch.double()
    eigenvalues = torch.linalg.eigvalsh(rows.T @ rows - sketch.T @ sketch)
    return eigenvalues[0].item(), eigenvalues[-1].item()
