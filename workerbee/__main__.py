"""``python -m workerbee`` is the command ``workerbee``."""

from workerbee.cli import main

main(prog_name="workerbee")
