from pathlib import Path

import cv2

from tests.conftest import NAMES
from tests.test_loader import AUGMENT, pictures
from yolite.data.loader import TrainLoader
from yolite.data.preview import draw_batch, write_batches


def test_batches_are_written_as_training_sees_them(shapes: Path, tmp_path: Path) -> None:
    made = pictures(shapes)
    files = write_batches(tmp_path / "new", 6, TrainLoader(made, AUGMENT, 5, 7, 1, 0), NAMES)
    assert [f.name for f in files] == [f"batch-{n:03d}.png" for n in range(1, 7)]  # four an epoch: into the second
    first = next(iter(TrainLoader(made, AUGMENT, 5, 7, 1, 0).epoch(0)))
    drawn = cv2.cvtColor(cv2.imread(str(files[0])), cv2.COLOR_BGR2RGB)
    assert (drawn == draw_batch(first, NAMES)).all()
    assert drawn.shape == (3 * 384 + 2 * 4, 2 * 384 + 4, 3)  # five pictures of 96 px, enlarged four times


def test_boxes_are_drawn(shapes: Path) -> None:
    first = next(iter(TrainLoader(pictures(shapes), AUGMENT, 2, 7, 1, 0).epoch(0)))
    bare = first.targets[first.targets.image == 9]
    assert (draw_batch(first, NAMES) != draw_batch(type(first)(first.images, bare, first.letterboxes, first.indices),
                                                   NAMES)).any()  # fmt: skip
