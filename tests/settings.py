"""The hub's settings for the tests, with secrets made for shared engines."""

from __future__ import annotations

import os
import secrets

from atp_site import env

for _name, (_, _size) in env.SECRETS.items():
    if not env.env_secret(_name):
        os.environ[_name] = secrets.token_urlsafe(_size)

from atp_site.settings import *  # noqa: E402, F403  # all of them, as Django reads a module

ATP_LOGINS_PER_MINUTE = 10_000  # agents of the cast log in for each test; one test lowers the limit
