"""A process that holds one engine and obeys JSON lines on its standard input. Driven by `workers.Worker`.

``python worker.py ENGINE`` imports ``engines/ENGINE.py``. A request is ``{"call": name, "arguments": {..}}``,
an answer ``{"result": ..}`` or ``{"error": text}``. The call ``start`` makes the engine; the others are its
methods. Between requests the process sleeps in `readline`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def _serve(engine_name: str) -> None:
    # Native code may print: keep the answers' channel to ourselves and send everything else to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    engine: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["call"] == "start":
                engine = importlib.import_module(f"engines.{engine_name}").Engine(**request["arguments"])
                result = None
            else:
                result = getattr(engine, request["call"])(**request["arguments"])
            answer = {"result": result}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    _serve(sys.argv[1])
