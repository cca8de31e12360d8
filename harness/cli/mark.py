"""`tailgate mark RUN TEXT`: put a mark on a running run's timeline."""

from pathlib import Path

from tailgate.harness.config.arguments import Parser
from tailgate.harness.load.event_log import mark


def run(argv: list[str]) -> int:
    parser = Parser(
        prog="tailgate mark",
        description="Put a mark on the timeline of a run that is going on.",
    )
    parser.add_argument("run", help="The run directory.")
    parser.add_argument("text", help='What happened, e.g. "deployed canary".')
    parser.add_argument("--quiet", action="store_true", help="Print nothing but errors.")
    options = parser.parse_args(argv)
    seconds = mark(Path(options.run), options.text)
    if not options.quiet:
        print(f"marked at {seconds:.1f} s")
    return 0
