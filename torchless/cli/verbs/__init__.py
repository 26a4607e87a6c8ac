"""One file per verb of the command line, found by file name. Each defines `command`, a `click.Command`.

A verb's file imports only light modules at its top: ``torchless --help`` imports all of them.
"""
