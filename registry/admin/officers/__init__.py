"""The admin pages of accounts, sign-in and API tokens."""
