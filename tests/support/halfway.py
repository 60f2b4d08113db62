"""A process that puts a policy library in force and is killed on the way; made to be killed.

`python -m tests.support.halfway CONFIG kept|stated` ends itself after the text of the library
is kept, or after the leaf that puts it in force is durable.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from gateway.app.activation import activation_of
from gateway.app.installation import open_installation


def main(config: str, until: str) -> None:
    """Go as far as *until*; never return."""
    house = open_installation(argparse.Namespace(config=config))
    leaf = activation_of(house, house.library, house.policy_files, "halfway")
    if until == "stated" and leaf is not None:
        house.sequencer.append_and_wait(leaf)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
