"""A terms-of-service compliance gateway between an organisation and closed model APIs."""
