"""`python -m scaleseg`."""

from scaleseg.cli import main

if __name__ == "__main__":
    main()
