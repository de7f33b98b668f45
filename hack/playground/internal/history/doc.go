// Package history remembers the sizes of a fleet that a watch has shown.
package history
