// Package cli is the command line: commands, flags and their help. What the
// commands do is elsewhere.
package cli
