"""The fixtures that every strategy's tests use."""

from kdbench.testing import assert_same, assert_trains, given

__all__ = ["assert_same", "assert_trains", "given"]
