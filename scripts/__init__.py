"""What docs/study.md and docs/growth.md are made with, from the root of the repository: ``python -m scripts.study``."""
