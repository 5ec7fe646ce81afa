"""The laws bite: every mutant of our own parts is caught by the law named beside it.

Each mutant is a real class with one line broken. The unmutated part passes the same law under the
same call, so that what the law reports is the mutation and nothing else.
"""
