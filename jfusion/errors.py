"""The base of every error that a person can mend."""


class UserError(ValueError):
    """Something a person can put right; commands print its text without a traceback."""


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200]
