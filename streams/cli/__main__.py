"""`python -m streams.cli`: the command `weir`, for a process that starts another one of its own kind."""

from streams.cli import main

main()
