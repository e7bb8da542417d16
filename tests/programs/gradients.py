"""Started by tests/test_processes.py, alone or by torchrun: do one step on a fixed batch and save its gradients."""

import sys

import torch

from tests.test_models import make
from yolite.geometry import Letterbox
from yolite.processes import ALONE, Processes, join, leave
from yolite.structures import Batch, Preprocess, Targets
from yolite.training.ema import EMA
from yolite.training.loss import DetectionLoss
from yolite.training.optim import build_optimizer, train_mode
from yolite.training.step import Stepper, StepReport, StepSettings

SIZE = (64, 96)


def batch(places: list[int]) -> Batch:
    """Pictures by number; picture n has n objects, so that the shares of two processes differ in positives."""
    letterbox = Letterbox.fit(SIZE, Preprocess(SIZE))
    images, boxes, labels, image = [], [], [], []
    for place, number in enumerate(places):
        random = torch.Generator().manual_seed(number)
        images.append(torch.randint(0, 256, (3, *SIZE), generator=random, dtype=torch.uint8))
        centre = torch.rand(number, 2, generator=random) * torch.tensor([96.0, 64.0])
        sides = 8 + 24 * torch.rand(number, 2, generator=random)
        boxes.append(torch.cat((centre - sides / 2, centre + sides / 2), 1))
        labels.append((number + torch.arange(number)) % 3)
        image.append(torch.full((number,), place))
    ignore = torch.zeros(sum(places), dtype=torch.bool)
    targets = Targets(torch.cat(boxes), torch.cat(labels), torch.cat(image), ignore)
    return Batch(torch.stack(images), targets, (letterbox,) * len(places), tuple(places))


def gradients(processes: Processes, parts: int, sync: bool = True) -> tuple[dict[str, torch.Tensor], StepReport]:
    """Return the gradients of one step on pictures 0 to 5, BN frozen, each share in so many parts."""
    model = make("yolite-n", 3)
    preprocess = Preprocess(SIZE)
    loss = DetectionLoss(5.0, 1.0, 1.0)
    optimizer = build_optimizer(model, "sgd", 0.1, 0.0, 0.0)
    train_mode(model, freeze_bn=True)
    step = Stepper(model, preprocess, loss, optimizer, EMA(model, 0.9), StepSettings(), processes)
    own = list(processes.share(range(6)))
    size = -(-len(own) // parts)
    report = step([batch(own[at : at + size]) for at in range(0, len(own), size)], 0.0, SIZE)
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}, report


if __name__ == "__main__":
    me = join()
    assert me == ALONE or me.world == 2
    found, report = gradients(me, int(sys.argv[2]))
    if me.main:
        torch.save({"gradients": found, "values": report.values, "positives": report.positives}, sys.argv[1])
    leave(me)
