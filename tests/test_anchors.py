import pytest
import torch

from yolite import anchors
from yolite.anchors import fit_report, kmeans_anchors, side_ratio, split_by_level
from yolite.boxes import shape_iou
from yolite.errors import UserError


def clusters() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    centres = torch.tensor([[10.0, 20.0], [40.0, 40.0], [150.0, 60.0]])
    return (centres[:, None, :] * (1 + 0.05 * torch.randn(3, 200, 2, generator=g))).flatten(0, 1)


@pytest.mark.parametrize("centroid", ["mean", "median"])
def test_finds_planted_clusters(centroid: str) -> None:
    report = kmeans_anchors(clusters(), 3, centroid=centroid)
    torch.testing.assert_close(report.anchors, torch.tensor([[10.0, 20.0], [40.0, 40.0], [150.0, 60.0]]), rtol=0.02,
                               atol=0.2)  # fmt: skip
    assert report.avg_iou > 0.9
    assert report.best_possible_recall == 1
    assert report.best.bincount().tolist() == [200, 200, 200]


def test_the_same_seed_gives_the_same_anchors() -> None:
    wh = torch.rand(500, 2, generator=torch.Generator().manual_seed(1)) * 100 + 1
    first, again = kmeans_anchors(wh, 6, seed=4), kmeans_anchors(wh, 6, seed=4)
    assert torch.equal(first.anchors, again.anchors)


def test_the_distance_is_that_of_shapes_not_of_pixels() -> None:
    """Scaling all boxes scales the anchors and changes nothing else: 1 − IoU knows no px."""
    wh = torch.rand(300, 2, generator=torch.Generator().manual_seed(2)) * 100 + 5
    small, large = kmeans_anchors(wh, 4), kmeans_anchors(wh * 8, 4)
    torch.testing.assert_close(large.anchors, small.anchors * 8)
    assert large.avg_iou == pytest.approx(small.avg_iou, abs=1e-6)


def test_of_several_starts_the_best_is_kept() -> None:
    """The first of ten starts is the only one of one start, so ten can never be worse, and now and then are better."""
    wh = torch.rand(200, 2, generator=torch.Generator().manual_seed(3)) * 100 + 2
    gains = [kmeans_anchors(wh, 6, seed=s, restarts=10).avg_iou - kmeans_anchors(wh, 6, seed=s, restarts=1).avg_iou
             for s in range(6)]  # fmt: skip
    assert min(gains) >= 0
    assert max(gains) > 1e-3


@pytest.mark.parametrize("centroid", ["mean", "median"])
@pytest.mark.parametrize("part", [7, 1 << 14])
def test_it_is_k_means_step_by_step(centroid: str, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the definition, every box with every centre in every round, from the same starts: the same bits."""
    monkeypatch.setattr(anchors, "AT_ONCE", part)
    monkeypatch.setattr(anchors, "RUN", part)
    wh = torch.randint(1, 40, (301, 2), generator=torch.Generator().manual_seed(5)).float()  # many equal ones
    found, generator = [], torch.Generator().manual_seed(3)
    for _ in range(4):
        centres = anchors._seed_plus_plus(wh, 5, generator)
        for _ in range(100):
            old, owner = centres, shape_iou(wh, centres).argmax(1)
            members = [wh[owner == i] for i in range(5)]
            centres = torch.stack([m.median(0).values if centroid == "median" else m.mean(0) for m in members])
            if torch.equal(old, centres):
                break
        found.append(centres)
    best = max(found, key=lambda c: float(shape_iou(wh, c).amax(1).mean()))
    assert torch.equal(kmeans_anchors(wh, 5, 3, 4, centroid).anchors, best[best.prod(1).argsort(stable=True)])


def test_an_empty_cluster_keeps_its_centre() -> None:
    wh, old = torch.tensor([[2.0, 3.0], [4.0, 9.0], [6.0, 5.0], [8.0, 7.0]]), torch.tensor([[1.0, 1.0]] * 4)
    owner = torch.tensor([2, 2, 0, 2])
    expected = [[6.0, 5.0], [1.0, 1.0], [4.0, 7.0], [1.0, 1.0]]
    medians = anchors._Medians(wh, 4)
    medians.move(torch.arange(4), torch.tensor([1, 2, 2, 2]))
    medians.move(torch.tensor([0, 2]), owner[[0, 2]])
    assert medians(old).tolist() == expected
    expected[2] = [14 / 3, 19 / 3]
    torch.testing.assert_close(anchors._means(wh, owner, old), torch.tensor(expected))


def test_report_by_hand() -> None:
    wh = torch.tensor([[10.0, 10.0], [20.0, 10.0], [10.0, 50.0]])
    report = fit_report(wh, torch.tensor([[10.0, 10.0]]), ratio=4.0)
    assert report.avg_iou == pytest.approx((1 + 0.5 + 0.2) / 3)
    assert report.best_possible_recall == pytest.approx(2 / 3)


def test_side_ratio_by_hand() -> None:
    assert side_ratio(torch.tensor([[10.0, 40.0]]), torch.tensor([[20.0, 20.0]])).item() == 2
    assert side_ratio(torch.tensor([[20.0, 60.0]]), torch.tensor([[20.0, 20.0]])).item() == pytest.approx(3)


def test_unusable_boxes_are_counted() -> None:
    bad = torch.tensor([[0.0, 5.0], [float("nan"), 5.0], [5.0, float("inf")], [-1.0, 5.0]])
    report = kmeans_anchors(torch.cat((clusters(), bad)), 3)
    assert (report.boxes, report.dropped) == (600, 4)
    assert torch.isfinite(report.anchors).all()


def test_identical_boxes_give_no_degenerate_anchors() -> None:
    report = kmeans_anchors(torch.tensor([[57.0, 57.0]]).repeat(20, 1), 3)
    assert report.anchors.tolist() == [[57, 57]] * 3
    assert report.avg_iou == 1


@pytest.mark.parametrize(("boxes", "k", "words"), [(2, 5, "only 2 boxes"), (5, 0, "at least 1 anchor")])
def test_plain_errors(boxes: int, k: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        kmeans_anchors(torch.ones(boxes, 2), k)


def test_levels_by_area() -> None:
    anchors = torch.tensor([[30.0, 30.0], [1.0, 1.0], [5.0, 6.0], [100.0, 9.0]])
    assert split_by_level(anchors, 2) == [((1.0, 1.0), (5.0, 6.0)), ((30.0, 30.0), (100.0, 9.0))]
    levels = split_by_level(anchors, 2)
    areas = [[w * h for w, h in level] for level in levels]
    assert max(areas[0]) <= min(areas[1])
    with pytest.raises(UserError, match="multiple of 3"):
        split_by_level(anchors, 3)
