"""Takes rights away from a process that is to run a model's code. Standard library only.

`confinement` says what is done, in which order; the other modules are one kernel facility each. There are three
isolations, and `execution.sandbox.Sandbox` uses the first that works on the machine. What the code reaches in each:

| | bubblewrap | landlock | limits |
|---|---|---|---|
| network, other programs' services (seccomp) | no | no | no |
| signals to other processes | no | no | no |
| contents of files but the interpreter's | no | no | what the user may: read, map, delete |
| names of files; installed packages | hidden | visible | visible |
| other processes | hidden | visible in /proc | visible in /proc |
| /tmp and /dev/shm | 64 MiB of its own | a folder of its own, files up to 1 MiB | no file can be written |
| what it leaves elsewhere | gone | nothing but in /dev/shm, which is emptied | stays |
| user, capabilities, new privileges | none | none; the user changes only for root | as landlock |
| CPU time, address space, processes, open files | limited | limited | limited |

bubblewrap needs the program `bwrap` and a kernel that lets this user make namespaces. landlock needs Linux 5.13 and
no privileges, so it works in containers that forbid namespaces. On a machine without seccomp, or with another
processor than x86_64 and aarch64, landlock and limits hold back neither network nor signals.

None of them holds back an attack on the kernel itself, side channels, or the use of memory and processors in sum: a
limit of the address space holds per process, of which a program may have up to 48, and as many run at a time as the
sandbox has workers.
"""
