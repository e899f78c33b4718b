import sys
from pathlib import Path

# The toy study is a module of its own here: its code has a fingerprint, and another process runs it.
sys.path.insert(0, str(Path(__file__).parent))
