"""``python -m verglas.cli``: the command line without the installed script."""

from verglas.cli.app import main

main()
