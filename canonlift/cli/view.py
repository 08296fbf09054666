"""Look at predictions in a browser: every view, the poses in space, and where they are wrong.

Examples:
    canonlift view runs/demo/eval
    canonlift view predictions.npz --recording test_00 --out test_00.html --no-browser

The page is one file that needs no network; it can be sent to others as it is.
"""

import argparse
import webbrowser
from pathlib import Path

from canonlift.cli.prediction_options import add_source, chosen
from canonlift.output import viewer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `canonlift view`."""
    add_source(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html", help="default: beside the predictions"
    )
    parser.add_argument("--no-browser", action="store_true", help="write the page only")


def run(args: argparse.Namespace) -> None:
    """Write the page, and open it where there is a browser."""
    predictions = chosen(args)
    path = args.out or predictions.path.with_suffix(".html")
    replaced = path.exists()
    if replaced and args.out is not None:
        raise FileExistsError(f"{path} exists; choose another --out")
    viewer.write(predictions, path)
    print(f"page: {path}{' (replaced)' if replaced else ''}")
    if not args.no_browser:
        show(path)


def show(path: Path) -> bool:
    """Open a page in the user's browser; False where there is none."""
    try:
        return webbrowser.open(path.resolve().as_uri())
    except webbrowser.Error:
        return False
