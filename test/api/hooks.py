"""After ten wrong tokens the API answers others with 429; a right one still counts. The
tester knows 401 and 403 alone as refusals of a token."""

from schemathesis.specs.openapi import checks

checks.AUTH_REJECTION_STATUSES = {*checks.AUTH_REJECTION_STATUSES, 429}
