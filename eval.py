"""`python eval.py RUN ...` is `canonlift eval RUN ...`."""

import sys

from canonlift.cli.main import main

if __name__ == "__main__":
    main(["eval", *sys.argv[1:]])
