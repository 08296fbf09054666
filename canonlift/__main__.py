"""`python -m canonlift` is the command `canonlift`."""

from canonlift.cli.main import main

main()
