"""The formats of dates for people, with their time zone, instead of Django's."""
