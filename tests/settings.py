"""The hub's settings for a run of the tests, which on shared engines brings its own secrets."""

from __future__ import annotations

import os
import secrets

from atp_site import env

for _name, (_, _size) in env.SECRETS.items():
    if not env.env_secret(_name):
        os.environ[_name] = secrets.token_urlsafe(_size)

from atp_site.settings import *  # noqa: E402, F403  # all of them, as Django reads a module

ATP_LOGINS_PER_MINUTE = 10_000  # the agents of a cast log in for each test; one test lowers it
