"""Tests decide whether a program is right. Everything here runs in processes of the sandbox, on the standard library.

`call_tests` grades calls and `script_tests` tests that are Python source, from another process than the program's;
`in_process` grades those that cannot be graded from there. This room isolates nothing: `isolation` does.
"""
