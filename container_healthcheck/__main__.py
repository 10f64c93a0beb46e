"""`python -m container_healthcheck`: the same command line as `container-healthcheck`."""

import sys

from container_healthcheck.cli.main import main

sys.exit(main())
