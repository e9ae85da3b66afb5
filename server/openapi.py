"""`python -m server.openapi [--check]`: the OpenAPI document as a file."""

import argparse
import json
import sys
from pathlib import Path

from server.app import create_app
from server.settings import ServerSettings

OPENAPI_FILE = Path(__file__).parent.parent / "openapi" / "openapi.json"


def render() -> str:
    """The document the code gives, as the file has it."""
    return json.dumps(create_app(ServerSettings()).openapi(), indent=2, sort_keys=True) + "\n"


def main() -> int:
    """Write the file, or with --check say whether it is current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 when the file is out of date")
    if parser.parse_args().check:
        return int(OPENAPI_FILE.read_text(encoding="utf-8") != render())
    OPENAPI_FILE.parent.mkdir(exist_ok=True)
    OPENAPI_FILE.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
