"""`python -m streamer` is `livevec`."""

from streamer.cli import main

main()
