"""The monolith before the tutorial: a process that builds the model again for each picture.

``python -m loadtest.bench.servers.monolith FILE`` prints the answer as JSON.
"""

import json
import sys
from pathlib import Path

from loadtest.bench.servers.keras_model import KerasModel

if __name__ == "__main__":
    print(json.dumps({"predictions": KerasModel().classify(Path(sys.argv[1]).read_bytes())}))
