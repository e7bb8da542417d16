"""What each verb of the command line does, one module a verb. Only these modules print."""
