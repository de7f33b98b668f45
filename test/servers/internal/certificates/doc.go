// Package certificates makes the certificates of tests.
package certificates
