"""`python -m trimtab`, which is also how launchers start one process of several."""

import os

from trimtab.cli import main

if "RANK" in os.environ:
    from trimtab.commands.launch import end_after

    end_after(main)
main()
