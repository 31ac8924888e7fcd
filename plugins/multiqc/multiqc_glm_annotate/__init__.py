"""MultiQC module for the output of glm-annotate."""
