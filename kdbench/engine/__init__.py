"""The training engine: lockstep groups, level 4 strategies, checkpoints, streams."""


class Stopped(Exception):
    """The user asked to stop; everything so far is checkpointed."""
