"""The command line, as ``detloop`` and as ``python -m detloop``."""

from loop.cli import main

if __name__ == "__main__":
    main()
