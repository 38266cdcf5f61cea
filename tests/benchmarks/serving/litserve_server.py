"""LitServe, which takes JSON, over the model of `make bench-serve`: `litserve_server.py MODEL PORT`."""

import sys
from base64 import b64decode

import litserve
import numpy as np
from model import DELAY, ROWS, Model


class API(litserve.LitAPI):
    folder = sys.argv[1] if len(sys.argv) > 1 else ""

    def setup(self, device):
        self.model = Model(self.folder)

    def decode_request(self, request):
        return self.model.read(b64decode(request["image"]))

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, pixels):
        return self.model.answers(pixels)

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    server = litserve.LitServer(API(max_batch_size=ROWS, batch_timeout=DELAY), accelerator="cpu", timeout=600)
    server.run(port=int(sys.argv[2]), generate_client_file=False, log_level="error")
