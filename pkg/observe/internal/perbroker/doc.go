// Package perbroker runs one loop for each broker of a set that changes.
package perbroker
