import torch

from yolite.structures import HeadSpec, Targets
from yolite.training.assign import by_ratio

SPEC = HeadSpec(10, ((20.0, 20.0), (200.0, 40.0)), 3, grid_scale=2.0, wh="sigmoid_square")


def targets(*boxes: list[float], ignore: bool = False) -> Targets:
    n = len(boxes)
    return Targets(
        torch.tensor(boxes).reshape(-1, 4), torch.zeros(n, dtype=torch.int64), torch.arange(n),
        torch.full((n,), ignore),
    )  # fmt: skip


def triples(found) -> set[tuple[int, int, int]]:
    return set(zip(found.anchor.tolist(), found.row.tolist(), found.column.tolist(), strict=True))


def test_own_cell_and_the_two_nearer_neighbours() -> None:
    """Centre (43, 58) at stride 10 is cell column 4, row 5, nearer to its left and to its lower neighbour."""
    found = by_ratio(targets([33.0, 48.0, 53.0, 68.0]), SPEC, (10, 12))
    assert triples(found) == {(0, 5, 4), (0, 5, 3), (0, 6, 4)}
    assert found.target.tolist() == [0, 0, 0]


def test_own_cell_alone() -> None:
    box = targets([33.0, 48.0, 53.0, 68.0])
    assert triples(by_ratio(box, SPEC, (10, 12), neighbours=False)) == {(0, 5, 4)}
    strict = HeadSpec(10, ((20.0, 20.0),), 3, grid_scale=1.0)
    assert triples(by_ratio(box, strict, (10, 12))) == {(0, 5, 4)}, (
        "a code that stops at the border reaches no neighbour"
    )


def test_neighbours_outside_the_grid_do_not_exist() -> None:
    found = by_ratio(targets([0.0, 0.0, 6.0, 6.0]), SPEC, (10, 12))
    assert triples(found) == {(0, 0, 0)}
    last = by_ratio(targets([110.0, 90.0, 120.0, 100.0]), SPEC, (10, 12))
    assert triples(last) >= {(0, 9, 11)}
    assert int(last.row.max()) == 9
    assert int(last.column.max()) == 11


def test_every_positive_can_reach_its_target() -> None:
    """The code's bounds allow each assigned cell to place the centre: |offset| within the reach of grid_scale."""
    g = torch.Generator().manual_seed(0)
    low = torch.rand(200, 2, generator=g) * 80
    boxes = torch.cat((low, low + 20), 1)
    found = by_ratio(targets(*boxes.tolist()), SPEC, (10, 12))
    centre = (boxes[:, :2] + 10)[found.target] / 10
    offset = centre - torch.stack((found.column, found.row), 1)
    assert (offset >= -0.5).all()
    assert (offset <= 1.5).all()
    assert len(found.target) > 500


def test_anchors_are_chosen_by_side_ratio() -> None:
    wide = targets([10.0, 30.0, 110.0, 60.0])  # 100×30: factor 5 from the square anchor, 2 from the wide one
    assert set(by_ratio(wide, SPEC, (10, 12)).anchor.tolist()) == {1}
    assert len(by_ratio(targets([0.0, 0.0, 2.0, 2.0]), SPEC, (10, 12)).anchor) == 0


def test_ignored_objects_get_no_positive() -> None:
    assert len(by_ratio(targets([33.0, 48.0, 53.0, 68.0], ignore=True), SPEC, (10, 12)).target) == 0


def test_no_object_at_all() -> None:
    assert len(by_ratio(targets(), SPEC, (10, 12)).target) == 0


def test_target_indices_survive_ignored_rows() -> None:
    both = Targets(
        torch.tensor([[0.0, 0.0, 20.0, 20.0], [33.0, 48.0, 53.0, 68.0]]), torch.tensor([1, 2]), torch.tensor([0, 1]),
        torch.tensor([True, False]),
    )  # fmt: skip
    found = by_ratio(both, SPEC, (10, 12))
    assert set(found.target.tolist()) == {1}
    assert set(found.image.tolist()) == {1}
