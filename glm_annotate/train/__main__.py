"""`python -m glm_annotate.train CONFIG.toml`: train without the rest of the command line."""

from __future__ import annotations

import argparse
import logging
import sys

from glm_annotate.errors import GlmAnnotateError
from glm_annotate.train.loop import train


def main() -> int:
    """Parse the command line, train, and return an exit code."""
    parser = argparse.ArgumentParser(prog="python -m glm_annotate.train", description=__doc__)
    parser.add_argument("config", help="TOML file")
    parser.add_argument("--data", help="data folder, in place of the config's")
    parser.add_argument("--resume", action="store_true", help="continue the run")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        checkpoint = train(arguments.config, resume=arguments.resume, data=arguments.data)
    except GlmAnnotateError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stderr.write(f"{checkpoint}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
