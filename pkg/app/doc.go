// Package app is the whole program, put together: it makes every part, joins
// them, runs them and shuts them down. It is the only wiring. Two of them can
// run in one process, since nothing here is global.
package app
