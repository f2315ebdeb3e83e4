"""``python -m agent``: the same as the console script ``outpost``."""

from agent.cli import main

if __name__ == "__main__":
    main()
