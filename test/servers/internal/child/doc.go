// Package child starts the child processes of tests, on ports and with
// configurations of their own.
package child
