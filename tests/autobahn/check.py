#!/usr/bin/env python3
"""Judges a report of Autobahn's WebSocket cases: every case ran, and none did worse than the specification asks.

usage: check.py REPORT_DIRECTORY

A behaviour of NON-STRICT counts as a failure: it means that the server was right in the end, but later than it could have been.
INFORMATIONAL marks the cases that have no right answer.
"""

import json
import pathlib
import sys

# Groups 1 to 7, 9 and 10 of the suite; 12 and 13 are compression, which this server does not offer.
CASES = 301
GOOD = {"OK", "INFORMATIONAL"}


def failures(cases):
    """The cases that did not do well, in the suite's own order."""
    bad = [name for name, case in cases.items() if {case["behavior"], case["behaviorClose"]} - GOOD]
    return sorted(bad, key=lambda name: [int(number) for number in name.split(".")])


def describe(directory, name, case):
    """One line on a failed case: what was expected, and what came."""
    detail = json.loads((directory / case["reportfile"]).read_text())
    return (
        f"  {name}: {case['behavior']}, close {case['behaviorClose']} (code {case['remoteCloseCode']}): "
        f"{detail['result']} {detail['resultClose']} Expected: {detail['expectation']}"
    )


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    directory = pathlib.Path(sys.argv[1])
    agents = json.loads((directory / "index.json").read_text())
    if len(agents) != 1:
        sys.exit(f"one server was tested, the report names {len(agents)}: {', '.join(agents)}")
    (cases,) = agents.values()
    bad = failures(cases)
    for name in bad:
        print(describe(directory, name, cases[name]))
    print(f"Autobahn: {len(cases) - len(bad)} passed, {len(bad)} failed")
    if len(cases) != CASES:
        sys.exit(f"{CASES} cases were to run, {len(cases)} did")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
