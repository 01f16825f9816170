"""The subcommands of `tinynet`, one a file: each has `add_parser(subparsers)` and `run(args) -> exit code`."""
