"""`python -m chartinsight_lib.cli`."""

from chartinsight_lib.cli import main

main()
