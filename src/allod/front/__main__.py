"""`python -m allod.front`: one front worker, as the node's launcher starts it."""

from allod.front.worker import main

raise SystemExit(main())
