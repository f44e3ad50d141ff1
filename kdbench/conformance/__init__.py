"""The conformance kit: whether a plugin keeps what it promises, check by check.

`kdbench check` and the fixture `check_strategy` carry it out. A check is a function
that raises `Broken` where something is wrong; what must hold, why that matters and how
it is mended stand beside it.
"""
