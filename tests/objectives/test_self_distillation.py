import math

import pytest
import torch

from arl.objectives.self_distillation import SelfDistillation, teacher_entropy

B, K, GLOBALS, VIEWS = 3, 7, 2, 5
STUDENT_TEMP, TEACHER_TEMP = 0.1, 0.05


def _logits(seed, views):
    return torch.randn(
        views, B, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def _softmax(values):
    weights = [math.exp(value - max(values)) for value in values]
    return [weight / sum(weights) for weight in weights]


def _slow(student, teacher, center):
    """DINO's loss as loops: pairs of different views, images, prototypes."""
    terms = []
    for i in range(len(teacher)):
        for j in range(len(student)):
            if i == j:
                continue
            for b in range(B):
                target = _softmax(
                    [(float(teacher[i, b, k]) - float(center[k])) / TEACHER_TEMP for k in range(K)]
                )
                predicted = _softmax([float(student[j, b, k]) / STUDENT_TEMP for k in range(K)])
                terms.append(-sum(t * math.log(s) for t, s in zip(target, predicted, strict=True)))
    return sum(terms) / len(terms)


@pytest.fixture
def objective():
    objective = SelfDistillation(K, STUDENT_TEMP, 0.9).double()
    objective.centering.center.copy_(0.3 * _logits(9, 1)[0, :1])
    return objective


def test_equals_dino(objective) -> None:
    student, teacher = _logits(0, VIEWS), _logits(1, GLOBALS)
    expected = _slow(student, teacher, objective.centering.center[0])
    assert math.isclose(float(objective(student, teacher, TEACHER_TEMP)), expected, rel_tol=1e-10)


def test_lists_and_stacks_are_the_same(objective) -> None:
    student, teacher = _logits(0, VIEWS), _logits(1, GLOBALS)
    objective.eval()
    assert torch.equal(
        objective(list(student), list(teacher), TEACHER_TEMP),
        objective(student, teacher, TEACHER_TEMP),
    )


def test_gradient_reaches_the_student_only(objective) -> None:
    objective.eval()
    student, teacher = _logits(0, VIEWS).requires_grad_(), _logits(1, GLOBALS).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: objective(s, teacher, TEACHER_TEMP), student)
    objective(student, teacher, TEACHER_TEMP).backward()
    assert teacher.grad is None


def test_the_centre_moves_in_training_only_and_after_its_use(objective) -> None:
    student, teacher = _logits(0, VIEWS), _logits(1, GLOBALS)
    before = objective.centering.center.clone()
    objective.eval()
    evaluated = objective(student, teacher, TEACHER_TEMP)
    assert torch.equal(objective.centering.center, before)
    objective.train()
    assert torch.equal(objective(student, teacher, TEACHER_TEMP), evaluated)
    expected = 0.9 * before[0] + 0.1 * teacher.flatten(0, 1).mean(dim=0)
    assert torch.allclose(objective.centering.center[0], expected, rtol=1e-12)


@pytest.mark.parametrize("centering", ["center", "sinkhorn"])
def test_the_loss_is_the_teachers_entropy_plus_a_divergence(centering) -> None:
    objective = SelfDistillation(K, STUDENT_TEMP, 0.9, centering).double()
    student, teacher = _logits(0, VIEWS), _logits(1, GLOBALS)
    targets = objective.targets(teacher, TEACHER_TEMP)
    assert torch.allclose(targets.sum(dim=-1), torch.ones(GLOBALS, B, dtype=torch.float64))
    divergence = 0.0
    pairs = [(i, j) for i in range(GLOBALS) for j in range(VIEWS) if i != j]
    for i, j in pairs:
        predicted = (student[j] / STUDENT_TEMP).log_softmax(dim=-1)
        divergence += float(
            torch.nn.functional.kl_div(predicted, targets[i], reduction="batchmean")
        ) / len(pairs)
    loss = float(objective.cross_entropy(student, targets))
    assert math.isclose(loss - float(teacher_entropy(targets)), divergence, rel_tol=1e-10)


def test_a_perfect_student_pays_the_entropy_alone() -> None:
    objective = SelfDistillation(K, 1.0, 0.9).double()
    logits = _logits(0, 1).expand(GLOBALS, B, K)
    targets = objective.targets(logits, 1.0)
    assert math.isclose(
        float(objective.cross_entropy(logits, targets)),
        float(teacher_entropy(targets)),
        rel_tol=1e-12,
    )


def test_entropy() -> None:
    assert math.isclose(
        float(teacher_entropy(torch.full((2, 3, K), 1 / K))), math.log(K), rel_tol=1e-6
    )
    assert float(teacher_entropy(torch.eye(K))) == 0


def test_low_precision_logits_give_a_float32_loss() -> None:
    objective = SelfDistillation(K, STUDENT_TEMP, 0.9)
    loss = objective(_logits(0, VIEWS).bfloat16(), _logits(1, GLOBALS).bfloat16(), 0.04)
    assert loss.dtype == torch.float32
    assert objective.centering.center.dtype == torch.float32


def test_one_view_has_no_partner(objective) -> None:
    with pytest.raises(ValueError, match="two different views: 1 teacher, 1 student"):
        objective(_logits(0, 1), _logits(1, 1), TEACHER_TEMP)
