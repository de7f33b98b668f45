// Package server reaches the servers of a broker on Redis: log-in, TLS, failover
// lists, Sentinel, exchanges of many commands, and errors that say what to do.
package server
