"""`python train.py CONFIG ...` is `canonlift train CONFIG ...`."""

import sys

from canonlift.cli.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
