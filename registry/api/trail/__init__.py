"""The trail over the API: filters, exports, schema and views."""
