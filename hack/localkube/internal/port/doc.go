// Package port chooses ports for child processes that cannot choose one
// themselves, and keeps everybody else from taking them.
package port
