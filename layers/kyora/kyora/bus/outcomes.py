"""What a consumer raises about a message when it is not done with it."""


class Permanent(Exception):
    """This message can never be handled; `code` says why, and holds nothing of its content."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Again(Exception):
    """Deliver this message again in `seconds`.

    A delivery counts towards the queue's limit, unless `counted` is false: for a wait that is not
    the message's fault, such as a provider that refuses every message for an hour.
    """

    def __init__(self, seconds: float, *, counted: bool = True) -> None:
        super().__init__(f"again in {seconds:.0f} s")
        self.seconds, self.counted = max(0, round(seconds)), counted
