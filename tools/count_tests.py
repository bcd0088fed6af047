#!/usr/bin/env python3
"""Prints "PASSED FAILED" for one folder of results: ctest.xml (ctest --output-junit) and one GoogleTest XML per test program.

A program that ctest calls failed although its own XML shows no failure (a crash, a leak, a timeout) adds one failure. Skipped cases
are failures: a test that cannot run has not passed.
"""
import pathlib
import sys
import xml.etree.ElementTree as ET


def cases(path):
    """(passed, failed) of a GoogleTest XML, or None when the program did not write a whole one."""
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError):
        return None
    total = failed = 0
    for case in root.iter("testcase"):
        if case.get("status") == "notrun":
            continue
        total += 1
        if case.find("failure") is not None or case.get("result") == "skipped":
            failed += 1
    return total - failed, failed


def main():
    folder = pathlib.Path(sys.argv[1])
    passed = failed = 0
    for program in ET.parse(folder / "ctest.xml").getroot().iter("testcase"):
        counts = cases(folder / f"{program.get('name')}.xml")
        good = program.get("status") == "run"
        if counts is None:
            passed, failed = passed + good, failed + (not good)
            continue
        passed += counts[0]
        failed += counts[1] if good else max(counts[1], 1)
    print(passed, failed)


main()
