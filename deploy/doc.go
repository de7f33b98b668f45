// Package deploy holds what an administrator installs, for the tests and tools
// that prove it.
package deploy
