// Package fleets tests the watch of workers' pods against a real API server with its
// real controllers.
package fleets
