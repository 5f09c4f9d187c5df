"""`python -m minidl` is the `minidl` command, also where nothing is installed and only the checkout is there."""

from minidl.cli import main

main(prog_name="minidl")
