"""The one exception for mistakes of the person at the keyboard: exit code 2 of the command line."""

from tailgate.workloads.common.formatting import visible


class UserError(Exception):
    """Bad input, configuration or environment: nothing was measured.

    ``what`` is wrong, in one sentence without a full stop; ``where`` is a file and key, e.g. ``chat.yaml:
    workload.arrivals.rate``, or a flag, and ``remedy`` what to do about it, where these are not obvious.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        # A server's words are often a part of it, and a terminal obeys what they may hold.
        what, where, remedy = visible(what), visible(where), visible(remedy)
        head = f"{where}: {what}" if where else what
        super().__init__(f"{head}. {remedy}" if remedy else head)

    @property
    def parts(self) -> dict[str, str]:
        """For another process, where ``UserError(**parts)`` is the same error."""
        return {"what": self.what, "where": self.where, "remedy": self.remedy}
