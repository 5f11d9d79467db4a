"""The cloud on one machine: what `make run` starts. Never deployed."""

import sys
from pathlib import Path

# Our own package, from where the layer is built.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "layers" / "kyora"))
