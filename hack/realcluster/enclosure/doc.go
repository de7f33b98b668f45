// Package enclosure runs the main part of a program in namespaces of its own: a network
// with nothing but loopback, mounts and processes that end with it, and /etc, /opt, /var
// and /run as they are, but what is written there is nobody else's. However the program
// ends, nothing of it is left; only if it is killed by SIGKILL outside, its folder and
// empty cgroups are. It needs root on Linux.
package enclosure
