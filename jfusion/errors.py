"""The base of every error that a person can mend."""


class UserError(ValueError):
    """Something a person can put right; commands print its text without a traceback."""
