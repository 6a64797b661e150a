"""`python -m dyx`."""

from dyx.cli import main

if __name__ == "__main__":
    main()
