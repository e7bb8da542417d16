"""Count what is on pictures: the Python API in a dozen lines.

python examples/count_objects.py runs/yolite-n-1 photo.jpg folder/ "more/*.png"
"""

import sys
from collections import Counter

from yolite import Predictor


def main() -> None:
    """Print one line a picture."""
    weights, *sources = sys.argv[1:]
    predictor = Predictor(weights)
    for result in predictor.predict(sources, conf=0.25):
        # result.boxes: [N, 4] float32 xyxy in px of the picture; result.scores: [N]; result.labels: [N] int64
        counts = Counter(result.names[label] for label in result.labels.tolist())
        print(result.path, result.error or dict(counts))


if __name__ == "__main__":
    main()
