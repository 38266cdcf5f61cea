"""The model of `make bench-serve`, as every server has it."""

from vitriad.classify import load_classifier, load_processor, predict, probabilities, read_pixels

ROWS, DELAY = 32, 0.005


class Model:
    """A classifier and its image processor."""

    def __init__(self, folder):
        self.model = load_classifier(folder, "torch")
        self.processor = load_processor(None, folder, self.model.config)

    def read(self, body):
        return read_pixels(body, self.processor, self.model.config)

    def answers(self, pixels):
        return [
            {"label": int(row.argmax()), "score": float(row.max())}
            for row in probabilities(predict(self.model, pixels))
        ]
