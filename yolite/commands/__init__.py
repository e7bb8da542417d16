"""What each verb of the command line does, one module a verb. They make the Console through which all is printed."""
