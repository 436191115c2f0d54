"""What ends a command with one line on stderr."""


class CommandError(Exception):
    """The command cannot do what was asked; the message is one line for the user, and the exit status 2."""


def reason(error: BaseException) -> str:
    """The message of a library's exception in one line."""
    return " ".join(str(error).split()) or type(error).__name__
