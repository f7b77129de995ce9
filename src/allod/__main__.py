"""`python -m allod` is the `allod` command."""

from allod.cli.main import main

raise SystemExit(main())
