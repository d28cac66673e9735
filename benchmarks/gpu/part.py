"""One part of the benchmark: python -m gpu.part OPTIONS END. Tells what it finds in lines of JSON; see parts.py."""

from __future__ import annotations

import faulthandler
import json
import sys
import time
import traceback
from collections.abc import Sequence
from typing import TypeVar

from gpu.options import Options
from gpu.table import Case
from patchserve_server.bootstrap.process import configure_process

B = TypeVar("B")
_LONGEST_WORDS = 200
_LATE_S = 0.5
LEAST_S = 0.5  # a case that would begin later is left out


def tell(**told: object) -> None:
    """Tell the process that waits for this part."""
    print(json.dumps(told), flush=True)


def run_cases(cases: Sequence[Case[B]], bench: B, *, seconds: float, ends_s: float) -> None:
    """Each case for so many seconds; for fewer, if all of them would not end in time."""
    for number, case in enumerate(cases):
        left_s = ends_s - time.monotonic()
        if left_s < LEAST_S:
            return
        share_s = left_s / (2 * (len(cases) - number))  # the other half is for what comes before the measurement
        try:
            tell(what=case.what, measured=case.measure(bench, min(seconds, share_s)).to_json())
        except Exception as error:  # noqa: BLE001 - the next case may work
            tell(what=case.what, failed=_words(error))
            traceback.print_exc()


def main() -> None:
    options, ends_s = Options.from_json(sys.argv[1]), float(sys.argv[2])
    faulthandler.dump_traceback_later(max(0.1, ends_s + _LATE_S - time.monotonic()))  # so that a hang says where
    configure_process()
    try:
        _run(options, ends_s)
    except Exception as error:
        tell(failure=_words(error))
        raise


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST_WORDS]}"


def _run(options: Options, ends_s: float) -> None:
    if options.part.startswith("served"):
        from gpu import serving  # noqa: PLC0415 - a part imports only what it needs

        with serving.opened(options) as bench:
            # A server has its own rhythm of batches, so it is watched for longer.
            run_cases(serving.cases(options), bench, seconds=2 * options.seconds, ends_s=ends_s)
    elif options.part == "files":
        from gpu import files  # noqa: PLC0415 - as above

        files.run(options, ends_s)
    elif options.part == "decoding":
        from gpu import decoding_part  # noqa: PLC0415 - as above

        decoding_part.run(options, ends_s)
    elif options.part == "networks":
        from gpu import networks  # noqa: PLC0415 - as above

        networks.run(options, ends_s)
    else:
        from gpu import engine  # noqa: PLC0415 - as above

        engine.run(options, ends_s)


if __name__ == "__main__":
    main()
