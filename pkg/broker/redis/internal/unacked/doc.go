// Package unacked follows the messages that workers hold: which there are, which
// queues they belong to, and whether that is known.
package unacked
