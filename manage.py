#!/usr/bin/env python3
"""Django's command line for the hub; `manage.py hub` serves it."""

import os
import sys
from pathlib import Path


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  # it may well be started by an older one
        sys.exit("The hub needs Python 3.11 or newer; this is {}.{}.".format(*sys.version_info))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atp_site.settings")
    try:
        from django.conf import settings
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line

        from atp_site import env
    except ModuleNotFoundError as exc:
        sys.exit(f"{exc.name} is not installed here; `make run` makes an environment that has it.")
    try:
        if sys.argv[1:2] == ["production"]:  # all of its processes are here: they share a folder
            env.keep_secrets(env.data_dir("ATP_DATA_DIR", Path(__file__).resolve().parent / "var"))
        settings.INSTALLED_APPS  # noqa: B018  # reads the settings
    except ImproperlyConfigured as exc:
        sys.exit(str(exc))
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
