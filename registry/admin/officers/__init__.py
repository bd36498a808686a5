"""Officers' accounts, log-in and API tokens in the admin."""
