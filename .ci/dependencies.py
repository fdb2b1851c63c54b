"""Checks every dependency: its licence is allowed, and the Rust of our manifest is new enough for it."""

import json
import re
import subprocess
import sys
import tomllib

# The list of cargo-deny, so that there is one. A crate that offers several is taken under one of these.
with open("deny.toml", "rb") as deny:
    ALLOWED = set(tomllib.load(deny)["licenses"]["allow"])
# Crates whose manifests do not name their licence, with that licence.
KNOWN = {}


def may_be_used(expression):
    """True if the allowed licences satisfy an SPDX expression."""
    # An old way to say OR.
    tokens = re.findall(r"\(|\)|[^\s()]+(?: WITH [^\s()]+)?", expression.replace("/", " OR "))
    words = {"(": "(", ")": ")", "OR": "or", "AND": "and"}
    return eval(" ".join(words.get(token, str(token in ALLOWED)) for token in tokens))


def version(text):
    """A version of Rust as numbers: `1.89` and `1.89.0` are equal."""
    numbers = [int(number) for number in text.split(".")]
    return numbers + [0] * (3 - len(numbers))


def shipped(metadata):
    """The packages that a user of our crates builds: without what only our tests need."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    ours = [id for id in metadata["workspace_members"] if packages[id]["publish"] != []]
    found, todo = set(), list(ours)
    while todo:
        id = todo.pop()
        if id in found:
            continue
        found.add(id)
        for dependency in nodes[id]["deps"]:
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"]):
                todo.append(dependency["pkg"])
    return [packages[id] for id in found], packages.values()


def main():
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    used, every = shipped(metadata)
    needed = next(package["rust_version"] for package in used if package["name"] == "aioq")
    faults = []
    for package in every:
        licence = package["license"] or KNOWN.get(package["name"], "none")
        if not may_be_used(licence):
            faults.append(f"{package['name']}: its licence `{licence}` is not among those allowed")
    for package in used:
        rust = package["rust_version"]
        if rust and version(rust) > version(needed):
            faults.append(f"{package['name']} needs Rust {rust}, and the manifest of aioq names {needed}")
    print("\n".join(faults) or f"{len(every)} packages, {len(used)} of them shipped: licences and Rust {needed} fit")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
