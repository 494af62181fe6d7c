"""One attempt at a stage, in a process of its own: `python -m arl.launch.attempt JSON`.

JSON is [name, overrides, arguments]. After a transient error the attempt leaves a file, by which
`arl.launch.stage` knows that another attempt is worth it.
"""

import json
import os
import sys
import traceback
from pathlib import Path

from arl.cli import call
from arl.launch.transient import transient_reason

# names the file that an attempt leaves after a transient error
MARKER = "ARL_TRANSIENT_FILE"


def main(text: str) -> int:
    """Run the stage; returns the exit code."""
    name, overrides, arguments = json.loads(text)
    try:
        call(name, overrides, **arguments)
    except Exception as error:
        if not isinstance(error, ValueError | OSError):
            traceback.print_exc()
        print(f"arl {name.replace('_', '-')}: {error}", file=sys.stderr, flush=True)
        reason = transient_reason(error)
        if reason and MARKER in os.environ:
            Path(os.environ[MARKER]).write_text(reason, encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
