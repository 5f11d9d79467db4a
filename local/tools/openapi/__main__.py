"""`make openapi`: write the document; `--check` compares it with the code."""

import sys

from local.tools.openapi.document import main

sys.exit(main())
