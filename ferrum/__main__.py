"""`python -m ferrum` is `ferrum-ref`."""

from ferrum.cli.main import main

if __name__ == "__main__":
    main()
