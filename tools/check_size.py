#!/usr/bin/env python3
"""Size budgets: lines of a file and of a function. Exceptions, each with its reason, stand in tools/lint_exceptions.txt.

A function is an outermost brace block whose head ends in a parameter list; it is counted from its head to its closing brace.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE_LIMIT = 400
PUBLIC_HEADER_LIMIT = 200
FUNCTION_LIMIT = 60
KERNEL_LIMIT = 200  # functions under src/cuda

NOISE = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*',
    re.DOTALL | re.MULTILINE)
NOT_A_FUNCTION = re.compile(r"^\s*(?:(?:inline\s+)?namespace|extern|class|struct|union|enum|template\s*<[^;{]*>\s*(?:class|struct|union))\b")
NAME = re.compile(r"([~\w:]+|operator\s*\S+)\s*\(")


def blank(match):
    return re.sub(r"[^\n]", " ", match.group())


def functions(text):
    """(name, line, lines) of every outermost function of a C++ source."""
    code = NOISE.sub(blank, text)
    head = 0  # where the text before the next brace begins
    closers = []
    start = None
    for at, char in enumerate(code):
        if char == "{":
            before = code[head:at]
            if start is None and ")" in before and not NOT_A_FUNCTION.match(before) and "=" not in before.split("(")[0].replace("operator=", ""):
                begin = head + len(before) - len(before.lstrip())
                name = NAME.search(before)
                start = (name.group(1) if name else "?", code.count("\n", 0, begin) + 1, len(closers))
            closers.append(char)
            head = at + 1
        elif char == "}" and closers:
            closers.pop()
            if start is not None and start[2] == len(closers):
                last = code.count("\n", 0, at) + 1
                yield start[0], start[1], last - start[1] + 1
                start = None
            head = at + 1
        elif char == ";":
            head = at + 1


def read_exceptions():
    """{"path" or "path:function": limit}; a line is: what, limit, reason."""
    limits = {}
    for line in (ROOT / "tools/lint_exceptions.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            what, limit, _reason = line.split(None, 2)
            limits[what] = int(limit)
    return limits


def main():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.h", "*.cc", "*.cu", "*.cuh", "*.py", "*.sh", "*.cmake"],
        cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    exceptions = read_exceptions()
    used = set()
    faults = []

    def check(what, shown, lines, limit):
        if lines <= limit:
            return
        if lines <= exceptions.get(what, 0):
            used.add(what)
        else:
            faults.append(f"{shown} has {lines} lines; the limit is {exceptions.get(what, limit)}")

    for path in sorted(set(listed)):
        if not (ROOT / path).is_file():
            continue
        text = (ROOT / path).read_text()
        public = path.startswith("include/") and path.endswith(".h")
        check(path, path, text.count("\n"), PUBLIC_HEADER_LIMIT if public else FILE_LIMIT)
        if path.endswith((".h", ".cc", ".cu", ".cuh")):
            for name, line, lines in functions(text):
                limit = KERNEL_LIMIT if path.startswith("src/cuda/") else FUNCTION_LIMIT
                check(f"{path}:{name}", f"{path}:{line}: {name}", lines, limit)
    faults += [f"tools/lint_exceptions.txt: {what} needs no exception" for what in sorted(set(exceptions) - used)]
    print("\n".join(faults) if faults else "sizes: all within budget")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
