"""Takes rights away from a process: namespaces, Landlock, seccomp, resource limits. Standard library only."""
