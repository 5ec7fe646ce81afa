"""The run-time type checker of the tests: beartype, reading annotations as mypy does."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

# An int where a float is annotated is right by PEP 484; beartype alone would refuse it.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
