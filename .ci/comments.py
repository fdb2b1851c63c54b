"""Fails if a line of comment in a Rust file is wider than 100 columns: rustfmt does not wrap comments.

Rows of tables (`//! | ... |`) are exempt: Markdown has no way to wrap a row.
"""

import pathlib
import re
import subprocess
import sys

WIDTH = 100
COMMENT = re.compile(r"\s*//[/!]?\s*(?P<text>.*)")

files = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.rs"],
    check=True,
    capture_output=True,
    text=True,
).stdout.split()

too_wide = []
for file in files:
    path = pathlib.Path(file)
    # A file that was deleted and not committed yet is still listed.
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        comment = COMMENT.fullmatch(line)
        if comment and len(line) > WIDTH and not comment["text"].startswith("|"):
            too_wide.append(f"{file}:{number}: comment of {len(line)} columns, wrap it at {WIDTH}")

print("\n".join(too_wide), end="\n" if too_wide else "")
sys.exit(bool(too_wide))
