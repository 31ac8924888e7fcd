"""`python -m glm_annotate` is the command line."""

from __future__ import annotations

from glm_annotate.cli import main

if __name__ == "__main__":
    main()
