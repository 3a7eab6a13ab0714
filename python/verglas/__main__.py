"""``python -m verglas``: the command line of the Python that is named, whichever ``verglas`` comes first on PATH."""

from verglas.cli import main

if __name__ == "__main__":
    main()
