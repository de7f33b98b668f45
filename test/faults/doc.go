// Package faults proves what the whole program answers when something is wrong:
// with a broker, with what it holds, with the rights on it, with the brokers
// file. The program runs in the test's process against real Redis servers and is
// asked over HTTP, as kubectl and Prometheus ask it.
package faults
