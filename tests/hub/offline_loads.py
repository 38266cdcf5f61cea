"""A program that loads what its command line names, and says which connections were tried. Python's own hook sees them.

python offline_loads.py torch '[["config", "folder", {}], ["model", "owner/name", {"local_files_only": true}]]'
"""

import json
import socket
import sys

import vitriad
from vit_core import AutoConfig, AutoImageProcessor
from vitriad.auto import model_class

BACKEND = sys.argv[1]
LOADS = {
    "config": AutoConfig.from_pretrained,
    "processor": AutoImageProcessor.from_pretrained,
    "model": model_class("ViTForImageClassification", BACKEND).from_pretrained,
    "any": lambda name, **options: vitriad.load(name, BACKEND, **options),
    "connection": lambda name, **options: socket.create_connection((name, 9)),
}
TRIED = []


def forbid(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname"):
        TRIED.append(event)
        raise PermissionError("no connection is allowed here")


if __name__ == "__main__":
    sys.addaudithook(forbid)
    endings, has_client = [], []
    for what, name, options in json.loads(sys.argv[2]):
        try:
            endings.append(type(LOADS[what](name, **options)).__name__)
        except Exception as error:
            endings.append(f"{type(error).__name__}: {error}")
        has_client.append("huggingface_hub" in sys.modules)
    print(json.dumps({"endings": endings, "tried": TRIED, "has_client": has_client}))
