// Package brokertest is the contract of a broker driver as a test suite: what
// the counts mean, when they are unknown, and what an error says. Every driver
// passes it against its real server.
package brokertest
