"""A plain FastAPI loop over the model of `make bench-serve`: `fastapi_server.py MODEL PORT`."""

import sys

import uvicorn
from fastapi import Body, FastAPI
from model import Model

app = FastAPI()


@app.post("/predict")
def classify(body: bytes = Body(media_type="application/octet-stream")):
    return app.state.model.answers(app.state.model.read(body)[None])[0]


if __name__ == "__main__":
    app.state.model = Model(sys.argv[1])
    uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
