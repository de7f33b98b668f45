// Package test holds what is true of the whole repository: that its packages
// know each other only as they may, and that its parts stay small.
package test
